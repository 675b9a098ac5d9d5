package policyd

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/postern-mail/postern/internal/admin/api"
)

// TestLimitClockSet sets the clock of Redis forward and back. Each step is logged once, and
// no login is locked out for longer than its window.
func TestLimitClockSet(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	server.SetTime(time.Now())
	d := startLogged(t, "--checks=limit", "--limit-store=redis://"+server.Addr(), "--limit=login=5/1h")
	for _, step := range []struct {
		off    time.Duration
		passed int
		logged bool
	}{
		{0, 5, false},
		{time.Second, 0, false},
		{24 * time.Hour, 5, true},
		{0, 0, true}, // what was counted in the future counts now
		{time.Hour + time.Minute, 5, true},
	} {
		server.SetTime(time.Now().Add(step.off))                                           // it stands still until the next step
		adminAsk[api.LimitsListResult](t, d.current, api.LimitsList, api.LimitsListArgs{}) // reads the clock
		if step.logged {
			d.await("the clock of the Redis server was set")
		}
		if n := asks(t, d.current, "bob@x.example", step.off.String()+time.Now().String(), 6); n != step.passed {
			t.Errorf("%s after the begin: %d passed, want %d", step.off, n, step.passed)
		}
	}
	d.quiet()
}
