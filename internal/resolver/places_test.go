package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// crowd asks about silent names until the test ends. Each of the clients asks many
// at a time. name returns the n-th name of a client.
func crowd(t *testing.T, r *resolver.Resolver, clients, each int, name func(client, n int) string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var n atomic.Int64
	for client := range clients {
		who := resolver.NewAsker(netip.AddrFrom4([4]byte{203, byte(client >> 8), byte(client), 7}))
		for range each {
			running.Go(func() {
				for ctx.Err() == nil {
					_, _ = r.LookupTXT(resolver.For(ctx, who), name(client, int(n.Add(1))))
				}
			})
		}
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// Strangers that make us ask about names with silent servers do not block others:
// not with one zone, not with many zones, and not from one network.
func TestSilentNamesBlockNoOne(t *testing.T) {
	for name, attack := range map[string]struct {
		clients, each int
		name          func(client, n int) string
		most          time.Duration // that a judging question waits
	}{
		"one zone":          {200, 13, func(_, n int) string { return fmt.Sprintf("n%d.silent.example", n) }, 0},
		"a zone a question": {200, 13, func(_, n int) string { return fmt.Sprintf("x.silent%d.example", n) }, 3 * time.Second},
		"one network":       {1, 2000, func(_, n int) string { return fmt.Sprintf("x.silent%d.example", n) }, 0},
		"reverse names":     {200, 13, func(_, n int) string { return fmt.Sprintf("%d.%d.1.10.in-addr.arpa", n%256, n/256) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := resolvertest.NewZone(t, zone+"*.bank.example. TXT \"v=DMARC1; p=reject\"\n")
				z.SetDelay("*.bank.example", 20*time.Millisecond)
				z.Fail("*", resolvertest.Silence)
				z.Fail("*.bank.example", resolvertest.Healthy)
				z.Fail(".", resolvertest.Healthy)
				r := cached(t, z, func(c *resolver.Config) { c.CacheBytes = -1 })
				defer crowd(t, r, attack.clients, attack.each, attack.name)()
				time.Sleep(4 * time.Second)
				ctx := resolver.Judging(resolver.For(t.Context(), resolver.NewAsker(netip.MustParseAddr("192.0.2.1"))))
				for i := range 10 {
					start := time.Now()
					if _, err := r.LookupTXT(ctx, fmt.Sprintf("_dmarc%d.bank.example", i)); err != nil {
						t.Error(err)
					}
					if took := time.Since(start) - 20*time.Millisecond; took > attack.most {
						t.Errorf("waited %v for a place, want at most %v", took, attack.most)
					}
				}
				if s := r.Stats(); s.InFlight > resolver.DefaultMaxInFlight || !s.Up {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// A neighbour of the attackers waits no longer than a silent question may last.
func TestNeighbourOfAttackers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.Fail("*.silent.example", resolvertest.Silence)
		r := cached(t, z, func(c *resolver.Config) { c.CacheBytes = -1 })
		defer crowd(t, r, 1, 400, func(_, n int) string { return fmt.Sprintf("n%d.silent.example", n) })()
		time.Sleep(5 * time.Second)
		start := time.Now()
		ctx := resolver.For(t.Context(), resolver.NewAsker(netip.MustParseAddr("203.0.0.99")))
		if _, err := r.LookupTXT(ctx, "example.org"); err != nil || time.Since(start) > 4*resolver.DefaultTimeout {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// A question that was ended for another says so, is temporary and is not kept.
func TestCrowdedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.Fail("silent.example", resolvertest.Silence)
		r := cached(t, z, func(c *resolver.Config) { c.MaxInFlight = 1 })
		done := make(chan error)
		go func() {
			_, err := r.LookupTXT(t.Context(), "silent.example")
			done <- err
		}()
		synctest.Wait()
		start := time.Now()
		if _, err := r.LookupTXT(t.Context(), "example.org"); err != nil || time.Since(start) != resolver.DefaultTimeout/2 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		err := <-done
		var failed *net.DNSError
		if !errors.Is(err, resolver.ErrCrowded) || !errors.As(err, &failed) || !failed.IsTemporary || !failed.IsTimeout || failed.Server == "" {
			t.Errorf("%#v", err)
		}
		if s := r.Stats(); s.Crowded != 1 || s.CacheEntries != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// One mail asks a limited number of questions at once. Other mails are not
// affected.
func TestQuestionsOfOneMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.SetDelay("*", 100*time.Millisecond)
		r := cached(t, z)
		ctx := resolver.For(t.Context(), resolver.NewAsker(netip.Addr{}))
		var running sync.WaitGroup
		for i := range 40 {
			running.Go(func() {
				if _, err := r.LookupTXT(ctx, fmt.Sprintf("n%d.wild.org", i)); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := r.Stats().InFlight; n != 16 {
			t.Errorf("%d in flight", n)
		}
		start := time.Now()
		if _, err := r.LookupTXT(t.Context(), "example.org"); err != nil || time.Since(start) != 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		running.Wait()
	})
}

// The zone of a list may use all places.
func TestOwnZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.SetDelay("*", 100*time.Millisecond)
		r := cached(t, z)
		var running sync.WaitGroup
		for i := range 1000 {
			who := resolver.NewAsker(netip.AddrFrom4([4]byte{192, byte(i >> 8), byte(i), 1}))
			running.Go(func() {
				ctx := resolver.OwnZone(resolver.For(t.Context(), who))
				if _, err := r.LookupTXT(ctx, fmt.Sprintf("n%d.wild.org", i)); err != nil {
					t.Error(err)
				}
			})
		}
		start := time.Now()
		running.Wait()
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

func TestWaitingEndsWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.SetDelay("*", 900*time.Millisecond)
		r := cached(t, z, func(c *resolver.Config) { c.MaxInFlight = 1 })
		who := resolver.NewAsker(netip.MustParseAddr("2001:db8::1"))
		for i := range 20 {
			go func() { _, _ = r.LookupTXT(resolver.For(t.Context(), who), fmt.Sprintf("n%d.wild.org", i%4)) }()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		for range 20 {
			if _, err := r.LookupTXT(resolver.For(ctx, who), "example.org"); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		time.Sleep(time.Minute)
		if s := r.Stats(); s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
	})
}
