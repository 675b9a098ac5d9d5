package resolver_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// largeZone has names whose answer does not fit into a packet.
func largeZone() string {
	return zone + "*.large.org. IN TXT" + strings.Repeat(` "`+strings.Repeat("x", 250)+`"`, 8) + "\n"
}

// When a server truncates and then stays silent over TCP, one question waits for
// its time-outs. From then on such answers fail at once, all others arrive, and TCP
// is used again when it works.
func TestSilentTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, largeZone())
		z.Fail("*", resolvertest.NoTCP)
		var changes []resolver.TCPChange
		r := cached(t, z, func(c *resolver.Config) {
			c.TCPChanged = func(change resolver.TCPChange) { changes = append(changes, change) }
		})
		ask := func(n int) (time.Duration, error) {
			start := time.Now()
			_, err := r.LookupTXT(t.Context(), fmt.Sprintf("n%d.large.org", n))
			took := time.Since(start)
			synctest.Wait() // for the check
			return took, err
		}
		if took, err := ask(0); !errors.Is(err, resolver.ErrTimeout) && !errors.Is(err, resolver.ErrNoTCP) || took > 3*resolver.DefaultTimeout {
			t.Errorf("the first question: %v after %v", err, took)
		}
		for n := 1; n < 20; n++ {
			took, err := ask(n)
			var temporary *net.DNSError
			if took != 0 || !errors.Is(err, resolver.ErrNoTCP) || !errors.As(err, &temporary) || !temporary.IsTemporary {
				t.Fatalf("question %d: %v after %v", n, err, took)
			}
		}
		if _, err := r.LookupTXT(t.Context(), "example.org"); err != nil {
			t.Errorf("an answer that fits: %v", err)
		}
		if s := r.Stats(); !s.Up || !s.Servers[0].Up || s.Servers[0].TCP {
			t.Errorf("%+v", s)
		}
		z.Fail("*", resolvertest.Healthy)
		time.Sleep(10 * time.Second)
		_, _ = ask(20) // starts a check of the server
		if took, err := ask(21); err != nil || took != 0 || !r.Stats().Servers[0].TCP {
			t.Errorf("TCP that is back: %v after %v, %+v", err, took, r.Stats())
		}
		var told []bool
		for _, c := range changes {
			told = append(told, c.Up)
			if c.Server != "127.0.0.1:53" {
				t.Errorf("%+v", c)
			}
		}
		if !slices.Equal(told, []bool{false, true}) {
			t.Errorf("changes %+v", changes)
		}
	})
}

// While it does not answer over TCP a server's share of large answers is asked of
// the others.
func TestSilentTCPOfOneServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, largeZone())
		r := open(t, resolver.Config{Servers: []string{"127.0.0.1", "127.0.0.2"}, Exchange: silentTCP{z}.exchange})
		slow := 0
		for n := range 40 {
			start := time.Now()
			if _, err := r.LookupTXT(t.Context(), fmt.Sprintf("n%d.large.org", n)); err != nil {
				t.Fatal(err)
			}
			if time.Since(start) > 0 {
				slow++
			}
			synctest.Wait()
		}
		if s := r.Stats(); slow > 2 || s.Servers[0].TCP || !s.Servers[1].TCP || !s.Servers[0].Up {
			t.Errorf("%d waited, %+v", slow, s)
		}
	})
}

// Names that stay silent over TCP do not count against the server, because
// strangers choose them.
func TestNamesThatAreSilentOverTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, largeZone()+strings.ReplaceAll(largeZone()[len(zone):], "large", "other"))
		z.Fail("*.large.org", resolvertest.NoTCP)
		r := cached(t, z)
		for n := range 10 {
			if _, err := r.LookupTXT(t.Context(), fmt.Sprintf("n%d.large.org", n)); !errors.Is(err, resolver.ErrTimeout) {
				t.Fatal(err)
			}
			synctest.Wait()
			if s := r.Stats(); !s.Servers[0].TCP || !s.Servers[0].Up || !s.Up {
				t.Fatalf("%+v", s)
			}
		}
		if _, err := r.LookupTXT(t.Context(), "x.other.org"); err != nil {
			t.Error(err)
		}
	})
}

// A firewall that rejects is noticed too.
func TestRefusedTCP(t *testing.T) {
	srv := resolvertest.New(t, largeZone())
	srv.RefuseTCP()
	r := open(t, resolver.Config{Servers: []string{srv.Addr()}})
	for n := 0; r.Stats().Servers[0].TCP; n++ {
		if _, err := r.LookupTXT(t.Context(), fmt.Sprintf("n%d.large.org", n)); err == nil {
			t.Fatal("answered")
		}
	}
	if _, err := r.LookupTXT(t.Context(), "x.large.org"); !errors.Is(err, resolver.ErrNoTCP) {
		t.Error(err)
	}
}
