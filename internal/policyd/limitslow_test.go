package policyd

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/store/redistest"
	"github.com/postern-mail/postern/internal/store/redistest/slownet"
	"github.com/postern-mail/postern/policy"
)

// TestLimitBusy has another program's script occupy Redis, which then refuses all commands.
// limit-on-error decides, a block that is known holds, and both changes are logged once.
func TestLimitBusy(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--lua-time-limit", "1")
	d := startLogged(t, "--checks=limit", "--limit-store=redis://"+server.Addr, "--limit=login=20/1h", "--limit-on-error=defer")
	asks(t, d.current, "bob@x.example", "before", 5)
	adminAsk[api.LimitsBlockResult](t, d.current, api.LimitsBlock, api.LimitsBlockArgs{Login: "eve@x.example"})
	script := exec.CommandContext(t.Context(), "redis-cli", "-u", "redis://"+server.Addr, "eval", "while true do end", "0")
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	for !strings.HasPrefix(server.Command("ping"), "BUSY") {
	}
	loadLimit(t, d.current, "busy", func(v policy.Verdict) bool { return v.Kind == policy.Defer && v.Reason == record.LimitUnavailable })
	d.await("does not answer")
	if v := ask(t, d.current, limitRequest("eve@x.example", "busy")); v.Reason != record.LimitBlocked {
		t.Errorf("a block while the server is busy: %+v", v)
	}
	commandsFail(t, d.current)
	server.Command("script", "kill")
	_ = script.Wait() // it was ended
	d.await("works again")
	if n := asks(t, d.current, "bob@x.example", "after", 20); n != 15 {
		t.Errorf("%d passed", n)
	}
	d.quiet()
}

// TestLimitSlowNetwork has all answers of Redis come late. The limit holds under load, each
// request is answered, and nothing is logged.
func TestLimitSlowNetwork(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	network, err := slownet.Start(server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	}()
	d := startLogged(t, "--checks=limit", "--limit-store=redis://"+network.Addr, "--limit=login=1000/1h", "--limit-on-error=defer")
	network.SetDelay(20*time.Millisecond, 120*time.Millisecond)
	loadLimit(t, d.current, "slow", func(v policy.Verdict) bool { return v.Kind == policy.Pass })
	network.SetDelay(0, 0)
	if used := adminAsk[api.LimitsShowResult](t, d.current, api.LimitsShow, api.LimitsOfArgs{Value: "bob@x.example"}).Uses[0].Used; used != loadWorkers*loadEach {
		t.Errorf("%d used", used)
	}
	d.quiet()
}

const (
	loadWorkers = 16
	loadEach    = 5
)

// loadLimit asks many times at once, and wants each answer to be right.
func loadLimit(t *testing.T, c *current, instance string, right func(policy.Verdict) bool) {
	t.Helper()
	var done sync.WaitGroup
	for w := range loadWorkers {
		done.Go(func() {
			for i := range loadEach {
				if d := ask(t, c, limitRequest("bob@x.example", fmt.Sprint(instance, w, "-", i))); !right(d.Verdict) {
					t.Errorf("%s: %s %s: %v", instance, d.Kind, d.Reason, d.Err)
					return
				}
			}
		})
	}
	done.Wait()
}

// quiet fails the test if something was logged about the store since the last await.
func (d *loggedDaemon) quiet() {
	d.t.Helper()
	select {
	case message := <-d.said:
		d.t.Errorf("also logged: %s", message)
	default:
	}
}
