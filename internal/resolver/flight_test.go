package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// cached returns a resolver with a cache that asks z, in the bubble of the caller.
func cached(t *testing.T, z *resolvertest.Zone, change ...func(*resolver.Config)) *resolver.Resolver {
	t.Helper()
	c := resolver.Config{Servers: []string{"127.0.0.1"}, Exchange: z.Exchange}
	for _, f := range change {
		f(&c)
	}
	return open(t, c)
}

func TestOneFlightForManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.SetDelay("*", time.Second)
		r := cached(t, z)
		var callers sync.WaitGroup
		var answered, cancelled atomic.Int32
		for i := range 50 {
			callers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*40+1)*time.Millisecond)
				defer cancel()
				switch _, err := r.LookupTXT(ctx, "example.org"); {
				case err == nil:
					answered.Add(1)
				case errors.Is(err, context.DeadlineExceeded):
					cancelled.Add(1)
				}
			})
		}
		callers.Wait()
		if z.Total() != 1 || answered.Load() != 25 || cancelled.Load() != 25 {
			t.Errorf("%d queries, %d answers, %d gave up", z.Total(), answered.Load(), cancelled.Load())
		}
	})
}

// A caller that cancels returns at once. The question goes on, and its answer is
// kept.
func TestFlightSurvivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.SetDelay("*", time.Second)
		r := cached(t, z)
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		_, err := r.LookupTXT(ctx, "example.org")
		if !errors.Is(err, context.Canceled) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if r.Stats().InFlight != 1 {
			t.Errorf("%+v", r.Stats())
		}
		time.Sleep(time.Second)
		if _, err := r.LookupTXT(t.Context(), "example.org"); err != nil || z.Total() != 1 {
			t.Errorf("%v after %d queries", err, z.Total())
		}
		if s := r.Stats(); s.InFlight != 0 || s.Hits != 1 || s.Misses != 1 {
			t.Errorf("%+v", s)
		}
		_, err = r.LookupTXT(ctx, "v4.org")
		if !errors.Is(err, context.Canceled) || z.Total() != 1 {
			t.Errorf("a cancelled caller asked: %v", err)
		}
	})
}

func TestManyAtOnceQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const names, places = 1000, 16
		z := resolvertest.NewZone(t, zone)
		z.SetDelay("*", 20*time.Millisecond)
		var now, most atomic.Int32
		r := cached(t, z, func(c *resolver.Config) {
			c.MaxInFlight = places
			c.Exchange = func(ctx context.Context, to netip.AddrPort, network string, query []byte) ([]byte, error) {
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				defer now.Add(-1)
				return z.Exchange(ctx, to, network, query)
			}
		})
		start := time.Now()
		var callers sync.WaitGroup
		for i := range names {
			callers.Go(func() {
				if _, err := r.LookupTXT(t.Context(), fmt.Sprintf("n%d.wild.org", i)); err != nil {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		if most.Load() > places || z.Total() != names {
			t.Errorf("%d at once, %d queries", most.Load(), z.Total())
		}
		if took, want := time.Since(start), 20*time.Millisecond*(names/places+1); took > want {
			t.Errorf("took %v, %v are enough", took, want)
		}
		synctest.Wait() // the last flight frees its place after its answer
		if s := r.Stats(); s.Queued == 0 || s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// The same over sockets: a packet that a full buffer has dropped is sent again.
func TestManyAtOnceOverSockets(t *testing.T) {
	checkLeaks(t)
	srv := resolvertest.New(t, zone)
	srv.SetDelay("*", 20*time.Millisecond)
	r := open(t, resolver.Config{Servers: []string{srv.Addr()}, Tries: 10})
	var callers sync.WaitGroup
	for i := range 1000 {
		callers.Go(func() {
			if got, err := r.LookupTXT(t.Context(), fmt.Sprintf("n%d.wild.org", i)); err != nil || got[0] != "wild" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	callers.Wait()
}

func TestQueueObeysTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.SetDelay("*", time.Second)
		r := cached(t, z, func(c *resolver.Config) { c.MaxInFlight = 1 })
		go func() { _, _ = r.LookupTXT(t.Context(), "example.org") }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := r.LookupTXT(ctx, "v4.org"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		// One waits for a place, the other for the same question: both get the
		// answer.
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if _, err := r.LookupTXT(t.Context(), "x.wild.org"); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if z.Total() != 2 {
			t.Errorf("%d queries", z.Total())
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.SetDelay("*", time.Hour)
		r, err := resolver.New(resolver.Config{Servers: []string{"127.0.0.1"}, Exchange: z.Exchange, MaxInFlight: 2})
		if err != nil {
			t.Fatal(err)
		}
		var callers sync.WaitGroup
		for _, name := range []string{"a.org", "b.org", "queued.org"} {
			callers.Go(func() {
				if _, err := r.LookupTXT(t.Context(), name); !errors.Is(err, resolver.ErrClosed) {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		synctest.Wait()
		start := time.Now()
		r.Close()
		callers.Wait()
		if took := time.Since(start); took != 0 {
			t.Errorf("closing took %v", took)
		}
		if _, err := r.LookupTXT(t.Context(), "c.org"); !errors.Is(err, resolver.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// Close also ends a wait for a socket.
func TestCloseInterruptsSockets(t *testing.T) {
	checkLeaks(t)
	srv := resolvertest.New(t, zone)
	srv.Fail("*", resolvertest.Silence)
	r, err := resolver.New(resolver.Config{Servers: []string{srv.Addr()}, Timeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := r.LookupTXT(t.Context(), "example.org")
		ended <- err
	}()
	for srv.Total() == 0 {
		select {
		case err := <-ended:
			t.Fatalf("ended early: %v", err)
		default:
			runtime.Gosched()
		}
	}
	r.Close()
	if err := <-ended; !errors.Is(err, resolver.ErrClosed) {
		t.Error(err)
	}
}
