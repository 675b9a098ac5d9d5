package resolver_test

import (
	"errors"
	"testing"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

func TestCachedAddrs(t *testing.T) {
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
		if addrs, known, err := r.CachedAddrs(c.host); known || err != nil || addrs != nil {
			t.Errorf("%s before it was asked: %v, %v, %v", c.host, addrs, known, err)
		}
		asked := z.Total()
		if asked != 0 {
			t.Errorf("%s: %d questions", c.host, asked)
		}
		_, _ = r.Query(t.Context(), c.host, resolver.TypeA) // the error is compared below
		z.ResetLog()
		addrs, known, err := r.CachedAddrs(c.host)
		if !known || len(addrs) != c.addrs || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v, %v", c.host, addrs, known, err)
		}
	}
	if _, known, err := r.CachedAddrs("a..b"); !known || !errors.Is(err, resolver.ErrBadName) {
		t.Errorf("a name that cannot be asked: %v, %v", known, err)
	}
	if s := r.Stats(); s.Misses != 4 {
		t.Errorf("looking costs %d misses", s.Misses)
	}
}
