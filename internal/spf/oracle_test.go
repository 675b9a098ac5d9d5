package spf

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"

	oracle "blitiri.com.ar/go/spf"
)

// ipAddrs adapts a zone to the oracle: it adds the method for addresses and makes
// names absolute.
type ipAddrs struct{ *zone }

func (z ipAddrs) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return z.zone.LookupTXT(ctx, strings.TrimSuffix(name, ".")+".")
}

func (z ipAddrs) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	return z.zone.LookupMX(ctx, strings.TrimSuffix(name, ".")+".")
}

func (z ipAddrs) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	host = strings.TrimSuffix(host, ".") + "."
	var out []net.IPAddr
	v4, err4 := z.LookupNetIP(ctx, "ip4", host)
	v6, err6 := z.LookupNetIP(ctx, "ip6", host)
	for _, a := range append(v4, v6...) {
		out = append(out, net.IPAddr{IP: a.AsSlice()})
	}
	if len(out) > 0 {
		return out, nil
	}
	if err4 != nil {
		return nil, err4
	}
	return nil, err6
}

// generator makes records that both implementations claim to support. It leaves out
// the parts in which the oracle is known to differ: exp=, %{p}, %{c r t},
// upper-case letters, syntax errors (it stops reading at a match), targets without
// a top-level label, local parts with @, and REFUSED (RFC 7208 section 4.4 makes it
// a temperror, the oracle a permerror).
type generator struct{ r *rand.Rand }

func (g generator) pick(of ...string) string { return of[g.r.IntN(len(of))] }

func (g generator) record() string {
	var b strings.Builder
	b.WriteString("v=spf1")
	for range g.r.IntN(5) {
		b.WriteString(" " + g.pick("", "", "+", "-", "~", "?") + g.mechanism())
	}
	switch g.r.IntN(4) {
	case 0:
		b.WriteString(" " + g.pick("-", "~", "?", "") + "all")
	case 1:
		b.WriteString(" redirect=" + g.target())
	}
	return b.String()
}

func (g generator) mechanism() string {
	switch g.r.IntN(8) {
	case 0:
		return "ip4:" + g.pick("192.0.2.1", "192.0.2.0/24", "192.0.0.0/8", "203.0.113.9/32", "198.51.100.7/0")
	case 1:
		return "ip6:" + g.pick("2001:db8::1", "2001:db8::/32", "2001:db8:9::/48", "::/0")
	case 2, 3:
		return "include:" + g.target()
	case 4:
		return "exists:" + g.pick("%{i}.", "%{ir}.%{v}.", "%{l}.", "%{lr-}.", "%{d1}.", "%{o2r}.", "") + g.target()
	case 5:
		return "mx" + g.suffix()
	case 6:
		return "ptr" + g.pick("", ":"+g.target())
	default:
		return "a" + g.suffix()
	}
}

func (g generator) suffix() string {
	return g.pick("", ":"+g.target()) + g.pick("", "", "/24", "/0", "/32", "//64", "/24//32", "//0")
}

func (g generator) target() string {
	return g.pick("n1.example", "n2.example", "n3.example", "n4.example", "n5.example", "%{d}", "%{o}", "gone.example")
}

// zone has five names with records, addresses of both families or of none (the
// oracle asks for both at once, and does not see a missing AAAA as void), and
// now and then a name that fails.
func (g generator) zone() *zone {
	z := newZone()
	for i := range 5 {
		name := fmt.Sprintf("n%d.example", i+1)
		if g.r.IntN(12) == 0 {
			z.Add(name, g.pick("TIMEOUT", "SERVFAIL"), "")
			continue
		}
		if g.r.IntN(10) > 0 {
			z.Add(name, "TXT", g.record())
		}
		if g.r.IntN(3) > 0 {
			z.Add(name, "A", g.pick("192.0.2.1", "192.0.2.77", "203.0.113.9"))
			z.Add(name, "AAAA", g.pick("2001:db8::1", "2001:db8::77", "2001:db8:5::1"))
			z.Add(name, "MX", "10 "+name+".")
		}
		if g.r.IntN(6) == 0 {
			z.Add(g.pick("192.0.2.1.", "1.2.0.192.in-addr.", "alice-b.", "b.alice.")+name, "A", "127.0.0.2")
		}
	}
	for range g.r.IntN(3) {
		z.Add("1.2.0.192.in-addr.arpa", "PTR", g.pick("n1.example.", "n2.example.", "x.n3.example.", "elsewhere.test."))
	}
	return z
}

// ask asks the oracle for one result.
func (g generator) ask(z *zone, ip netip.Addr, opts ...oracle.Option) (oracle.Result, error) {
	opts = append(opts, oracle.WithResolver(ipAddrs{z}))
	return oracle.CheckHostWithSender(ip.AsSlice(), "n5.example", "alice-b@n1.example", opts...)
}

// TestAgainstOracle compares generated zones with the other implementation.
// One difference is known: it counts a client's missing PTR as a void lookup
// of the domain, and so lets the client turn a fail into a permerror. Such a
// difference must be gone when its voids are not limited.
func TestAgainstOracle(t *testing.T) {
	const runs = 20_000
	agreed, voids := map[Status]int{}, 0
	for seed := range uint64(runs) {
		g := generator{rand.New(rand.NewPCG(seed, 7208))}
		z := g.zone()
		ip := netip.MustParseAddr(g.pick("192.0.2.1", "192.0.2.1", "2001:db8::1", "203.0.113.200"))
		got := CheckMailFrom(t.Context(), z, Args{IP: ip, Helo: "n5.example", Sender: Sender{"alice-b", "n1.example"}})
		want, err := g.ask(z, ip)
		if errors.Is(err, oracle.ErrVoidLookupLimitReached) && string(want) != string(got.Status) {
			want, err = g.ask(z, ip, oracle.OverrideVoidLookupLimit(1000))
			voids++
		}
		if string(want) != string(got.Status) {
			t.Errorf("seed %d: %s (%v), oracle %s (%v); zone %v", seed, got.Status, got.Err, want, err, z)
		}
		agreed[got.Status]++
	}
	t.Logf("agreed: %v, of them %d without the oracle's void limit", agreed, voids)
	if voids > runs/100 {
		t.Errorf("%d differences by void lookups: more than reverse names can explain", voids)
	}
	for _, s := range []Status{None, Neutral, Pass, Fail, SoftFail, TempError, PermError} {
		if agreed[s] < 100 {
			t.Errorf("only %d agreements on %s", agreed[s], s)
		}
	}
}
