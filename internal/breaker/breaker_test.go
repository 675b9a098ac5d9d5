package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/breaker"
)

var (
	errDead = errors.New("connection refused")
	errOdd  = errors.New("no such key")
)

// lab is a breaker with a clock of its own.
type lab struct {
	*breaker.Breaker
	now     time.Time
	changes []string
}

func newLab(change func(*breaker.Config)) *lab {
	l := &lab{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	c := breaker.Config{
		First: time.Second, Last: 4 * time.Second,
		Now: func() time.Time { return l.now },
		Changed: func(c breaker.Change) {
			l.changes = append(l.changes, fmt.Sprintf("up=%t err=%v down=%v asked=%v", c.Up, c.Err, c.Down, l.Down()))
		},
		Classify: func(err error) breaker.Class {
			if errors.Is(err, errOdd) {
				return breaker.Answered
			}
			return breaker.Classify(err)
		},
	}
	if change != nil {
		change(&c)
	}
	l.Breaker = breaker.New(c)
	return l
}

// ask asks a question that ends with err, and returns what the caller gets.
func (l *lab) ask(err error) error {
	_, got := breaker.Do(l.Breaker, func() (int, error) { return 1, err })
	return got
}

func (l *lab) wantChanges(t *testing.T, want ...string) {
	t.Helper()
	if fmt.Sprint(l.changes) != fmt.Sprint(want) {
		t.Errorf("changes %q, want %q", l.changes, want)
	}
}

// Only questions that are asked are timed.
func TestDoTimed(t *testing.T) {
	l := newLab(nil)
	var timed []string
	took := func(d time.Duration, err error) { timed = append(timed, fmt.Sprint(d, " ", err)) }
	for _, outcome := range []error{nil, errDead, errDead, errDead, nil} {
		_, _ = breaker.DoTimed(l.Breaker, took, func() (int, error) {
			l.now = l.now.Add(7 * time.Millisecond)
			return 1, outcome
		})
	}
	if got, err := breaker.DoTimed(newLab(nil).Breaker, nil, func() (int, error) { return 2, nil }); got != 2 || err != nil {
		t.Errorf("without took: %d, %v", got, err)
	}
	if want := "[7ms <nil> 7ms connection refused 7ms connection refused 7ms connection refused]"; fmt.Sprint(timed) != want {
		t.Errorf("timed %v, want %s", timed, want)
	}
}

func TestOpensAndCloses(t *testing.T) {
	l := newLab(nil)
	for range 3 {
		if err := l.ask(errDead); !errors.Is(err, errDead) || errors.Is(err, breaker.ErrDown) {
			t.Fatalf("before it opens: %v", err)
		}
	}
	if err := l.ask(nil); !errors.Is(err, breaker.ErrDown) || !errors.Is(err, errDead) {
		t.Errorf("open: %v", err)
	}
	l.now = l.now.Add(time.Second)
	if err := l.ask(nil); err != nil {
		t.Errorf("the try after the pause: %v", err)
	}
	if err := l.ask(nil); err != nil || l.Down() != nil {
		t.Errorf("closed: %v, %v", err, l.Down())
	}
	l.wantChanges(t, "up=false err=connection refused down=0s asked=connection refused", "up=true err=<nil> down=1s asked=<nil>")
}

// A question that is refused after a time-out has not been late itself.
func TestRefusedInTime(t *testing.T) {
	l := newLab(nil)
	late := fmt.Errorf("no answer: %w", context.DeadlineExceeded)
	for range 3 {
		if err := l.ask(late); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("before it opens: %v", err)
		}
	}
	err := l.ask(nil)
	if !errors.Is(err, breaker.ErrDown) || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), late.Error()) {
		t.Errorf("open: %v", err)
	}
}

func TestClasses(t *testing.T) {
	for _, test := range []struct {
		name  string
		third error
		down  bool
	}{
		{"failure", errDead, true},
		{"answer", nil, false},
		{"an error that is an answer", fmt.Errorf("asked: %w", errOdd), false},
		{"a caller that went away", context.Canceled, false},
		{"a time-out", context.DeadlineExceeded, true},
	} {
		l := newLab(nil)
		for _, err := range []error{errDead, errDead, test.third} {
			_ = l.ask(err)
		}
		if down := l.Down() != nil; down != test.down {
			t.Errorf("%s: down %t, want %t", test.name, down, test.down)
		}
	}
}

// A backend that itself refuses to serve is down at once.
func TestHopeless(t *testing.T) {
	l := newLab(func(c *breaker.Config) { c.Classify = func(error) breaker.Class { return breaker.Hopeless } })
	_ = l.ask(errDead)
	l.wantChanges(t, "up=false err=connection refused down=0s asked=connection refused")
}

// Watch finds out without other questions that a backend is down, and that it is
// up again.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var changes []string
		b := breaker.New(breaker.Config{First: time.Second, Last: 2 * time.Second, Changed: func(c breaker.Change) {
			changes = append(changes, fmt.Sprintf("%v: up=%t", time.Since(start), c.Up))
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		asked := 0
		watching.Go(func() {
			b.Watch(ctx, 10*time.Second, func(context.Context) error {
				asked++
				if since := time.Since(start); since >= 10*time.Second && since < 40*time.Second {
					return errDead
				}
				return nil
			})
		})
		time.Sleep(time.Hour)
		cancel()
		watching.Wait()
		if got, want := fmt.Sprint(changes), "[12s: up=false 41s: up=true]"; got != want {
			t.Errorf("changes %s, want %s", got, want)
		}
		if asked > 3600/10+30 {
			t.Errorf("asked %d times in an hour", asked)
		}
	})
}

// A cancelled question neither adds to the failures in a row nor ends them.
func TestIgnoredKeepsCount(t *testing.T) {
	l := newLab(nil)
	for _, err := range []error{errDead, errDead, context.Canceled, errDead} {
		_ = l.ask(err)
	}
	if l.Down() == nil {
		t.Error("three failures with an ignored one between did not open it")
	}
}

func TestPauseDoubles(t *testing.T) {
	l := newLab(nil)
	for range 3 {
		_ = l.ask(errDead)
	}
	for _, pause := range []time.Duration{1, 2, 4, 4, 4} {
		l.now = l.now.Add(pause*time.Second - 1)
		if err := l.ask(errDead); !errors.Is(err, breaker.ErrDown) {
			t.Fatalf("asked before %ds: %v", pause, err)
		}
		l.now = l.now.Add(1)
		if err := l.ask(errDead); errors.Is(err, breaker.ErrDown) {
			t.Fatalf("not asked after %ds: %v", pause, err)
		}
	}
	l.wantChanges(t, "up=false err=connection refused down=0s asked=connection refused")
}

func TestOneProbeAtATime(t *testing.T) {
	l := newLab(nil)
	for range 3 {
		_ = l.ask(errDead)
	}
	l.now = l.now.Add(time.Minute)
	probe, err := l.Allow()
	if err != nil || !probe.Probe() {
		t.Fatalf("no probe: %v", err)
	}
	if _, err := l.Allow(); err == nil {
		t.Error("a second question while the probe is under way")
	}
	probe.Abandon()
	again, err := l.Allow()
	if err != nil || !again.Probe() {
		t.Fatalf("an abandoned probe blocks the next: %v", err)
	}
	again.Done(context.Canceled)
	if again, err = l.Allow(); err != nil {
		t.Fatalf("a probe whose caller went away blocks the next: %v", err)
	}
	again.Done(nil)
	if q, err := l.Allow(); err != nil || q.Probe() {
		t.Errorf("closed: probe %t, %v", q.Probe(), err)
	}
}

func TestLateOutcomes(t *testing.T) {
	l := newLab(nil)
	early, err := l.Allow()
	if err != nil {
		t.Fatal(err)
	}
	late, err := l.Allow()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_ = l.ask(errDead)
	}
	early.Done(errDead) // neither a probe nor a change
	l.now = l.now.Add(time.Second)
	if _, err := l.Allow(); err != nil {
		t.Errorf("a late failure put the try off: %v", err)
	}
	late.Done(nil)
	if l.Down() != nil {
		t.Error("a late success is one all the same")
	}
}

func TestPanicEndsTheQuestion(t *testing.T) {
	l := newLab(func(c *breaker.Config) { c.Failures = 1 })
	func() {
		defer func() { _ = recover() }()
		_, _ = breaker.Do(l.Breaker, func() (int, error) { panic("broken driver") })
	}()
	if err := l.Down(); err == nil {
		t.Fatal("a panic is no failure")
	}
	l.now = l.now.Add(time.Second)
	if err := l.ask(nil); err != nil {
		t.Errorf("the try after it: %v", err)
	}
}

// Changes are reported in order, however many questions end at once.
func TestChangesInOrder(t *testing.T) {
	up := true
	b := breaker.New(breaker.Config{Failures: 1, First: time.Nanosecond, Changed: func(c breaker.Change) {
		if c.Up == up {
			t.Errorf("heard up=%t twice in a row", up)
		}
		up = c.Up
	}})
	var asking sync.WaitGroup
	for i := range 8 {
		asking.Go(func() {
			for n := range 2000 {
				var outcome error
				if (n+i)%3 == 0 {
					outcome = errDead
				}
				_, _ = breaker.Do(b, func() (int, error) { return 0, outcome })
			}
		})
	}
	asking.Wait()
	if down := b.Down() != nil; down == up {
		t.Errorf("down %t, but the last change says up %t", down, up)
	}
}

// BenchmarkUp measures the cost of a breaker while the backend works.
func BenchmarkUp(b *testing.B) {
	guard := breaker.New(breaker.Config{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, _ = breaker.Do(guard, func() (int, error) { return 1, nil })
		}
	})
}
