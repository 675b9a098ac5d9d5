package checks_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/policy/checks"
)

// BenchmarkGreylist checks new senders of a domain whose SPF record the
// resolver remembers, with the lists in the program. "waiting" is the same
// without the first try from the resolver's memory.
func BenchmarkGreylist(b *testing.B) {
	dns := resolvertest.New(b, "good.example. 3600 IN TXT \"v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all\"\n").Resolver(b)
	for _, bench := range []struct {
		name    string
		network bool
		plain   bool
	}{{name: "spf"}, {name: "waiting", plain: true}, {name: "network", network: true}} {
		b.Run(bench.name, func(b *testing.B) {
			g := newGreylist(nil)
			g.Store = memstore.New(memstore.Options{})
			g.Keyer.NetworkKey = bench.network
			g.Resolver = dns
			if bench.plain {
				g.Resolver = struct{ spf.Resolver }{dns}
			}
			g.AllowClients, _ = checks.ReadGreylistClients([]string{checks.DefaultAllowList})
			g.AllowSenders, _ = checks.ReadGreylistSenders([]string{checks.DefaultAllowList})
			r := rcpt("192.0.2.7", "x@good.example", "bob@home.example")
			r.Received = time.Now()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r.Sender = mailaddr.ParseInternal("x" + strconv.Itoa(i) + "y@good.example")
				ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
				if _, err := g.Check(ctx, r, nil); err != nil {
					b.Fatal(err)
				}
				cancel()
			}
		})
	}
}
