package e2e

import (
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// TestGreylistCases sends what "make try" shows, on each of its stores.
func TestGreylistCases(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	for _, store := range []string{"memory:", "redis"} {
		t.Run(store, func(t *testing.T) {
			if store == "redis" {
				url, stop, err := StartRedis(t.Context(), t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(stop)
				store = url
			}
			dns := resolvertest.New(t, Zones)
			s := newSite(t, WithGreylist(WithLists(SiteConfig{}, dns.Addr()), store))
			for _, c := range GreylistCases() {
				o, header, err := c.RunGreylist(t.Context(), s)
				if err != nil {
					t.Fatal(err)
				}
				if o.Wrong != nil {
					t.Error(o.Wrong)
				}
				t.Logf("%s: %s %s", c.Name, o.Reply, header)
			}
		})
	}
}
