package limit

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// A step that is the same again is not looked up, and nothing is lost by that.
func TestTrailKeepsOrder(t *testing.T) {
	var trail Trail
	home, away := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24")
	for _, s := range []step{
		{"bob", "a.example", home}, {"bob", "a.example", home}, {"bob", "b.example", away}, {"bob", "a.example", home},
		{"bob", "", netip.Prefix{}}, {"alice", "c.example", away},
	} {
		trail.note(s.login, s.network, s.domain)
	}
	networks, domains := trail.Of("bob")
	if want := []string{away.String(), home.String()}; !slices.Equal(networks, want) {
		t.Errorf("networks %v, want %v", networks, want)
	}
	if want := []string{"b.example", "a.example"}; !slices.Equal(domains, want) {
		t.Errorf("domains %v, want %v", domains, want)
	}
}

// A login that was replaced by others is remembered again with its next mail, even if this
// mail is like the one before.
func TestTrailRemembersReplaced(t *testing.T) {
	var trail Trail
	network := netip.MustParsePrefix("192.0.2.0/24")
	trail.note("bob", network, "a.example")
	for i := range trailLogins {
		trail.note(fmt.Sprint("login", i), network, "a.example")
	}
	if networks, _ := trail.Of("bob"); networks != nil {
		t.Fatalf("%v is kept beside %d other logins", networks, trailLogins)
	}
	trail.note("bob", network, "a.example")
	if networks, domains := trail.Of("bob"); len(networks) != 1 || len(domains) != 1 {
		t.Errorf("networks %v, domains %v", networks, domains)
	}
	if len(trail.all) != trailLogins {
		t.Errorf("%d logins, want %d", len(trail.all), trailLogins)
	}
}

func BenchmarkTrail(b *testing.B) {
	var trail Trail
	network := netip.MustParsePrefix("192.0.2.0/24")
	logins := make([]string, 20_000)
	for i := range logins {
		logins[i] = fmt.Sprintf("login%d@d%d.example", i, i%997)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i += 7919
		trail.note(logins[i%len(logins)], network, "example.org")
	}
}
