package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/breaker"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// Each kind of outcome is kept for its time: a lookup just before the end sends
// nothing, and a lookup at the end asks again.
func TestHowLongOutcomesAreKept(t *testing.T) {
	const text = `
org.       IN SOA ns.org. me.org. 1 3600 600 86400 40
a.org.     90     IN TXT "x"
long.org.  86400  IN TXT "x"
short.org. 0      IN TXT "x"
alias.org. 20     IN CNAME a.org.
`
	for _, c := range []struct {
		name  string
		fault resolvertest.Fault
		want  time.Duration
	}{
		{"a.org", "", 90 * time.Second},
		{"long.org", "", time.Hour},
		{"short.org", "", time.Second},
		{"alias.org", "", 20 * time.Second},
		{"absent.org", "", 40 * time.Second},
		{"org", "", 40 * time.Second},
		{"absent.org", resolvertest.NoSOA, 0},
		{"a.org", resolvertest.ServFail, 5 * time.Second},
		{"a.org", resolvertest.Refused, 5 * time.Second},
		{"a.org", resolvertest.Many, 5 * time.Second},
		{"a.org", resolvertest.Unavailable, 5 * time.Second},
	} {
		t.Run(c.name+string(c.fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := resolvertest.NewZone(t, text)
				z.Fail("*", c.fault)
				z.Fail(".", resolvertest.Healthy) // the server itself works
				r := cached(t, z)
				first, firstErr := r.Query(t.Context(), c.name, resolver.TypeTXT)
				asked := z.Count(c.name, "TXT")
				if c.fault == "" && first.TTL != c.want {
					t.Errorf("TTL %v", first.TTL)
				}
				if c.want > 0 {
					time.Sleep(c.want - 1)
					again, err := r.Query(t.Context(), strings.ToUpper(c.name), resolver.TypeTXT)
					if z.Count(c.name, "TXT") != asked {
						t.Error("not kept")
					}
					if (err == nil) != (firstErr == nil) || again.Status != first.Status || c.fault == "" && again.TTL != 1 {
						t.Errorf("%+v, %v", again, err)
					}
					time.Sleep(time.Nanosecond)
				}
				_, _ = r.Query(t.Context(), c.name, resolver.TypeTXT)
				if z.Count(c.name, "TXT") == asked {
					t.Error("kept too long")
				}
			})
		})
	}
}

// An expired deadline of the caller is not kept for the name.
func TestCallersDeadlineIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.SetDelay("*", time.Second)
		r := cached(t, z)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := r.LookupTXT(ctx, "example.org"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if _, err := r.LookupTXT(t.Context(), "example.org"); err != nil || r.Stats().Failed != 0 {
			t.Errorf("%v, %+v", err, r.Stats())
		}
	})
}

func TestNothingIsKeptWithoutCache(t *testing.T) {
	z := resolvertest.NewZone(t, zone)
	for range 3 {
		if _, err := z.LookupTXT(t.Context(), "example.org"); err != nil {
			t.Fatal(err)
		}
	}
	if s := z.Stats(); z.Total() != 3 || s.CacheEntries != 0 || s.CacheBytes != 0 {
		t.Errorf("%d queries, %+v", z.Total(), s)
	}
}

// two returns a resolver with two servers. The first stays silent while dead is
// true.
type two struct {
	*resolvertest.Zone
	dead func() bool
}

// silentTCP returns a resolver with two servers. The first does not answer over
// TCP.
type silentTCP struct{ *resolvertest.Zone }

func (p silentTCP) exchange(ctx context.Context, to netip.AddrPort, network string, query []byte) ([]byte, error) {
	if to.Addr() == netip.MustParseAddr("127.0.0.1") && network == "tcp" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return p.Exchange(ctx, to, network, query)
}

func (p two) exchange(ctx context.Context, to netip.AddrPort, network string, query []byte) ([]byte, error) {
	if to.Addr() == netip.MustParseAddr("127.0.0.1") && p.dead() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return p.Exchange(ctx, to, network, query)
}

// One dead server of two costs one time-out, then nothing. When it answers again,
// it is used again.
func TestDeadServerOfTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := two{resolvertest.NewZone(t, zone), func() bool { return time.Since(start) < time.Minute }}
		r := open(t, resolver.Config{Servers: []string{"127.0.0.1", "127.0.0.2"}, CacheBytes: -1, Exchange: p.exchange})
		slow := 0
		for range 600 {
			before := time.Now()
			if _, err := r.LookupTXT(t.Context(), "example.org"); err != nil {
				t.Fatal(err)
			}
			switch took := time.Since(before); took {
			case 0:
			case resolver.DefaultTimeout:
				slow++
			default:
				t.Errorf("a lookup took %v", took)
			}
			time.Sleep(200 * time.Millisecond)
		}
		if slow != 1 {
			t.Errorf("%d lookups waited", slow)
		}
		s := r.Stats()
		if !s.Servers[0].Up || s.Servers[0].Queries < 100 || s.Probes < 3 || s.Probes > 10 {
			t.Errorf("%+v", s)
		}
	})
}

// A name whose own servers are dead must not put our servers out of the rotation.
func TestSilenceAboutOneNameIsNotTheServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.Fail("absent.org", resolvertest.Silence)
		r := cached(t, z, func(c *resolver.Config) { c.CacheBytes = -1 })
		done := make(chan error)
		go func() {
			_, err := r.LookupTXT(t.Context(), "absent.org")
			done <- err
		}()
		for ended := false; !ended; {
			select {
			case err := <-done:
				if !errors.Is(err, resolver.ErrTimeout) {
					t.Error(err)
				}
				ended = true
			case <-time.After(300 * time.Millisecond):
				if _, err := r.LookupTXT(t.Context(), "example.org"); err != nil {
					t.Error(err)
				}
			}
		}
		if s := r.Stats(); !s.Servers[0].Up || s.Timeouts != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAllServersDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.Fail("*", resolvertest.Silence)
		var changes []breaker.Change
		r := cached(t, z, func(c *resolver.Config) {
			c.Servers = []string{"127.0.0.1", "127.0.0.2"}
			c.Tries = 4
			c.Changed = func(change breaker.Change) { changes = append(changes, change) }
		})
		start := time.Now()
		if _, err := r.LookupTXT(t.Context(), "example.org"); !errors.Is(err, resolver.ErrTimeout) {
			t.Error(err)
		}
		// The second try ends at the same time as the question about the root.
		if took := time.Since(start); took > 3*resolver.DefaultTimeout || r.Stats().Up {
			t.Errorf("%v, %+v", took, r.Stats())
		}
		start = time.Now()
		var failed *net.DNSError
		stranger := resolver.For(t.Context(), resolver.NewAsker(netip.MustParseAddr("192.0.2.1")))
		_, err := r.LookupTXT(stranger, "v4.org")
		if !errors.Is(err, resolver.ErrDown) || !errors.As(err, &failed) || !failed.IsTemporary || !failed.IsTimeout || time.Since(start) != 0 {
			t.Errorf("while no server answers: %v after %v", err, time.Since(start))
		}
		if n := z.Count("v4.org", ""); n != 0 || r.Stats().Unasked != 1 {
			t.Errorf("%d questions, %+v", n, r.Stats())
		}
		z.Fail("*", resolvertest.Healthy)
		for time.Sleep(8 * time.Second); !r.Stats().Up; synctest.Wait() {
			_, _ = r.LookupTXT(stranger, "v4.org") // starts a check of the servers
		}
		if _, err := r.LookupTXT(t.Context(), "v4.org"); !errors.Is(err, resolver.ErrNoData) {
			t.Errorf("servers that are back must be asked: %v", err)
		}
		synctest.Wait()
		if len(changes) != 2 || changes[0].Up || !errors.Is(changes[0].Err, resolver.ErrTimeout) || !changes[1].Up {
			t.Errorf("changes %+v", changes)
		}
		// A question of our own that finds the outage over is answered at once.
		z.Fail("*", resolvertest.Silence)
		_, _ = r.LookupTXT(t.Context(), "x.wild.org")
		z.Fail("*", resolvertest.Healthy)
		time.Sleep(8 * time.Second)
		if _, err := r.LookupTXT(t.Context(), "y.wild.org"); err != nil || r.Stats().Unasked < 1 {
			t.Errorf("%v, %+v", err, r.Stats())
		}
	})
}

// However many names stay silent, a server that answers about the root is up:
// strangers choose the names.
func TestSilentNamesAreNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.Fail("*.silent.example", resolvertest.Silence)
		r := cached(t, z)
		for i := range 20 {
			if _, err := r.LookupTXT(t.Context(), fmt.Sprintf("n%d.silent.example", i)); !errors.Is(err, resolver.ErrTimeout) {
				t.Fatal(err)
			}
			synctest.Wait() // for the question about the root
			if s := r.Stats(); !s.Up || s.Unasked != 0 || !s.Servers[0].Up {
				t.Fatalf("%+v", s)
			}
		}
		if _, err := r.LookupTXT(t.Context(), "example.org"); err != nil {
			t.Error(err)
		}
	})
}

// A machine without a free socket is not the server's fault, and more tries
// would make it worse.
func TestLocalErrorEndsTheLookup(t *testing.T) {
	tries := 0
	r := open(t, resolver.Config{
		Servers: []string{"127.0.0.1", "127.0.0.2"},
		Exchange: func(context.Context, netip.AddrPort, string, []byte) ([]byte, error) {
			tries++
			return nil, os.NewSyscallError("socket", syscall.EMFILE)
		},
	})
	var dns *net.DNSError
	_, err := r.LookupTXT(t.Context(), "example.org")
	if !errors.Is(err, syscall.EMFILE) || !errors.As(err, &dns) || !dns.IsTemporary {
		t.Error(err)
	}
	if s := r.Stats(); tries != 1 || s.LocalErrors != 1 || s.CacheEntries != 0 || !s.Servers[0].Up || !s.Servers[1].Up {
		t.Errorf("%d tries, %+v", tries, s)
	}
}

func TestConfig(t *testing.T) {
	server := []string{"127.0.0.1"}
	for name, c := range map[string]resolver.Config{
		"server":           {Servers: []string{"dns.example"}},
		"file":             {ResolvConf: t.TempDir() + "/none"},
		"timeout":          {Servers: server, Timeout: -1},
		"tries":            {Servers: server, Tries: -1},
		"too many tries":   {Servers: server, Tries: 17},
		"max ttl":          {Servers: server, MaxTTL: -1},
		"min over max ttl": {Servers: server, MinTTL: time.Hour, MaxTTL: time.Minute},
		"negative ttl":     {Servers: server, MaxNegativeTTL: -1},
		"in flight":        {Servers: server, MaxInFlight: -1},
	} {
		if r, err := resolver.New(c); err == nil || !strings.HasPrefix(err.Error(), "resolver: ") {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	r := open(t, resolver.Config{Servers: []string{"127.0.0.1", "[::1]:5353"}, MaxTTL: time.Millisecond, MinTTL: -1})
	if got := r.Servers(); len(got) != 2 || got[0].String() != "127.0.0.1:53" || got[1].String() != "[::1]:5353" {
		t.Errorf("%v", got)
	}
}
