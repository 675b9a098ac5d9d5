package resolver_test

import (
	"errors"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// Memory answers from the cache, absent names included, and asks nothing.
func TestMemory(t *testing.T) {
	server := resolvertest.New(t, `known.example. 60 TXT "text"
known.example. 60 A 192.0.2.1
other.example. 60 TXT "text"
`)
	r, err := resolver.New(resolver.Config{Servers: []string{server.Addr()}, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.LookupTXT(t.Context(), "known.example"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.LookupTXT(t.Context(), "absent.example"); err == nil {
		t.Fatal("absent.example is there")
	}
	asked := len(server.Queries())

	memory := r.Memory()
	if got, err := memory.LookupTXT(t.Context(), "Known.Example."); err != nil || len(got) != 1 {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := memory.LookupTXT(t.Context(), "absent.example"); errors.Is(err, resolver.ErrNotInMemory) || err == nil {
		t.Errorf("an absence that is known: %v", err)
	}
	if memory.Missed() {
		t.Error("missed what it knows")
	}
	if _, err := memory.LookupTXT(t.Context(), "other.example"); !errors.Is(err, resolver.ErrNotInMemory) || !memory.Missed() {
		t.Errorf("%v, missed %t", err, memory.Missed())
	}
	memory = r.Memory()
	if _, err := memory.LookupNetIP(t.Context(), "ip", "known.example"); err == nil || !memory.Missed() {
		t.Errorf("addresses: %v, missed %t", err, memory.Missed())
	}
	if now := len(server.Queries()); now != asked {
		t.Errorf("%d questions were sent", now-asked)
	}
}

func TestMemoryOfAddresses(t *testing.T) {
	z := resolvertest.NewZone(t, "a.example. IN A 192.0.2.1\nt.example. IN TXT x\n")
	z.Fail("f.example", resolvertest.ServFail)
	r, err := resolver.New(resolver.Config{Servers: []string{"127.0.0.1"}, Exchange: z.Exchange})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, c := range []struct {
		host  string
		addrs int
		err   error
	}{
		{"A.example.", 1, nil}, {"none.example", 0, nil}, {"t.example", 0, nil}, {"f.example", 0, resolver.ServFail},
	} {
		if a, err := r.Memory().Query(t.Context(), c.host, resolver.TypeA); !errors.Is(err, resolver.ErrNotInMemory) || a.Addrs != nil {
			t.Errorf("%s before it was asked: %v, %v", c.host, a.Addrs, err)
		}
		asked := z.Total()
		if asked != 0 {
			t.Errorf("%s: %d questions", c.host, asked)
		}
		_, _ = r.Query(t.Context(), c.host, resolver.TypeA) // the error is compared below
		z.ResetLog()
		a, err := r.Memory().Query(t.Context(), c.host, resolver.TypeA)
		if len(a.Addrs) != c.addrs || !errors.Is(err, c.err) || errors.Is(err, resolver.ErrNotInMemory) {
			t.Errorf("%s: %v, %v", c.host, a.Addrs, err)
		}
	}
	memory := r.Memory()
	if _, err := memory.Query(t.Context(), "a..b", resolver.TypeA); memory.Missed() || !errors.Is(err, resolver.ErrBadName) {
		t.Errorf("a name that cannot be asked: %v, %v", memory.Missed(), err)
	}
	if s := r.Stats(); s.Misses != 4 {
		t.Errorf("looking costs %d misses", s.Misses)
	}
}
