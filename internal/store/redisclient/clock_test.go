package redisclient_test

import (
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/postern-mail/postern/internal/store/redisclient"
)

// A clock that is set forward or back is reported once, and one that goes on is not.
func TestClockStep(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	var steps []time.Duration
	c, err := redisclient.Open(redisclient.Options{URL: "redis://" + server.Addr(), ClockStep: func(by time.Duration) { steps = append(steps, by.Round(time.Hour)) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, off := range []time.Duration{0, time.Second, 24 * time.Hour, 24 * time.Hour, -24 * time.Hour, 0} {
		server.SetTime(time.Now().Add(off))
		if err := c.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := []time.Duration{24 * time.Hour, -48 * time.Hour, 24 * time.Hour}; !slices.Equal(steps, want) {
		t.Errorf("%v, want %v", steps, want)
	}
}
