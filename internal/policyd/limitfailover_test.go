package policyd

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/redisstore"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/store/redistest"
	"github.com/postern-mail/postern/policy"
)

// TestLimitFailover kills the master of two daemons while both count. limit-on-error
// decides until the replica is master, and then the limit holds for what was counted
// before, except for what the master had not sent to the replica.
func TestLimitFailover(t *testing.T) {
	t.Parallel()
	servers := redistest.StartSentinels(t)
	const most, killAt, workers = 600, 200, 4 // workers of each daemon
	args := []string{"--checks=limit", "--limit-store=" + servers.URL(), fmt.Sprintf("--limit=login=%d/1h", most), "--limit-on-error=defer"}
	daemons := []*loggedDaemon{startLogged(t, args...), startLogged(t, args...)}
	var passed atomic.Int64
	killed := make(chan struct{})
	send := func(phase string, end record.Reason) {
		var done sync.WaitGroup
		for n, d := range daemons {
			for w := range workers {
				done.Go(func() {
					for i := 0; ; i++ {
						v := ask(t, d.current, limitRequest("bob@x.example", fmt.Sprint(phase, n, "-", w, "-", i)))
						if v.Kind != policy.Pass {
							if v.Kind != policy.Defer || v.Reason != end {
								t.Errorf("%s: %+v", phase, v)
							}
							return
						}
						switch n := passed.Add(1); {
						case n == killAt:
							servers.Master.Kill()
							close(killed)
						case n > killAt:
							<-killed // the limit is not reached before
						}
					}
				})
			}
		}
		done.Wait()
	}
	send("before", record.LimitUnavailable)
	before := passed.Load()
	for _, d := range daemons {
		d.await("does not answer")
	}
	servers.Watchers[0].Await("+switch-master")
	for _, d := range daemons {
		d.await("works again")
	}
	send("after", record.LimitRecipients)

	got := adminAsk[api.LimitsShowResult](t, daemons[0].current, api.LimitsShow, api.LimitsOfArgs{Value: "bob@x.example"})
	if got.Uses[0].Used != most {
		t.Errorf("%+v", got)
	}
	// A request under way when the master was killed can be counted without an answer,
	// or answered without being replicated.
	if lost := passed.Load() - most; lost > 2*workers || lost < -2*workers {
		t.Errorf("%d passed, %d of them before the master was killed; the limit is %d", passed.Load(), before, most)
	}
	if v := ask(t, daemons[1].current, limitRequest("bob@x.example", "before0-0-0")); v.Kind != policy.Pass {
		t.Errorf("a request from before the failover is repeated: %+v", v)
	}
}

// TestLimitNotWritten has a server that answers reads and refuses to write. It counts as
// down although it answers, and as up only when it writes again.
func TestLimitNotWritten(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--min-replicas-to-write", "1")
	store, err := redisstore.Open(redisstore.Options{URL: "redis://" + server.Addr})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	if err := store.Probe(t.Context()); !errors.Is(err, limit.ErrFull) || !strings.Contains(err.Error(), "NOREPLICAS") {
		t.Errorf("probe: %v", err)
	}
	d := startLogged(t, "--checks=limit", "--limit-store=redis://"+server.Addr, "--limit=login=5/1h", "--limit-on-error=defer")
	d.await("does not answer") // before mail arrives
	if v := ask(t, d.current, limitRequest("bob@x.example", "a")); v.Kind != policy.Defer || v.Reason != record.LimitUnavailable {
		t.Errorf("%+v", v)
	}
	if list := adminAsk[api.LimitsListResult](t, d.current, api.LimitsList, api.LimitsListArgs{}); !strings.Contains(list.Down, "NOREPLICAS") {
		t.Errorf("the store can be read: %+v", list)
	}
	server.Command("config", "set", "min-replicas-to-write", "0")
	d.await("works again")
	if n := asks(t, d.current, "bob@x.example", "b", 6); n != 5 {
		t.Errorf("%d passed", n)
	}
}

// loggedDaemon is a daemon whose errors and news can be awaited.
type loggedDaemon struct {
	*current
	t     *testing.T
	said  chan string
	ready *metrics.Readiness
}

func startLogged(t *testing.T, args ...string) *loggedDaemon {
	t.Helper()
	d := &loggedDaemon{current: newCurrent(), t: t, said: make(chan string, 100)}
	core, _ := observer.New(zap.InfoLevel)
	log := zap.New(core, zap.Hooks(func(e zapcore.Entry) error {
		if slices.ContainsFunc([]string{"the limit store", "the limit file", "the greylist file"}, func(s string) bool { return strings.Contains(e.Message, s) }) {
			d.said <- e.Message
		}
		return nil
	}))
	r := service.NewRuntime(log, metrics.New(metrics.Options{}))
	r.Readiness.Serving()
	d.ready = r.Readiness
	s, err := loadInto(d.current, r, append([]string{"--config="}, args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(d.current)
	t.Cleanup(d.Close)
	return d
}

// condition returns what /readyz says of a condition, once it is watched.
func (d *loggedDaemon) condition(name string) string {
	d.t.Helper()
	for d.t.Context().Err() == nil {
		_, report := d.ready.Ready()
		if _, said, ok := strings.Cut(report, name+": "); ok {
			said, _, _ = strings.Cut(said, "\n")
			return said
		}
		runtime.Gosched()
	}
	return ""
}

// await waits for the next line about the store, which must contain text.
func (d *loggedDaemon) await(text string) {
	d.t.Helper()
	select {
	case message := <-d.said:
		if !strings.Contains(message, text) {
			d.t.Errorf("logged %q, want %q", message, text)
		}
	case <-d.t.Context().Done():
		d.t.Fatalf("%q was not logged", text)
	}
}
