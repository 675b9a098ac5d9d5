package dnsbl

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// cachedLists returns lists whose resolver has a cache, with answers from memory.
func cachedLists(b *testing.B) *Lists {
	b.Helper()
	z := resolvertest.NewZone(b, ". 3600 IN SOA ns.invalid. me.invalid. 1 3600 600 86400 3600\n"+world)
	r, err := resolver.New(resolver.Config{Servers: []string{"127.0.0.1"}, Exchange: z.Exchange})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(r.Close)
	return newLists(b, r, zen, dbl, Config{Signals: true})
}

// BenchmarkCached measures a request with answers from the cache: one about the
// address of the client, the others about its names.
func BenchmarkCached(b *testing.B) {
	for _, names := range []int{0, 2, 4} {
		b.Run(fmt.Sprintf("questions=%d", names+1), func(b *testing.B) {
			l := cachedLists(b)
			q := Query{Address: netip.MustParseAddr("192.0.2.1")}
			for n := range names {
				q.Names = append(q.Names, Subject{"sender", fmt.Sprintf("n%d.example", n)})
			}
			b.ReportAllocs()
			for b.Loop() {
				if r, err := l.Check(b.Context(), q); err != nil || r.Outcome != Clean || r.Asked != names+1 {
					b.Fatal(r, err)
				}
			}
		})
	}
}
