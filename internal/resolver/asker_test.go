package resolver

import (
	"context"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

func TestZoneOf(t *testing.T) {
	for name, want := range map[string]string{
		"_dmarc.mail.bank.example":     "bank.example",
		"s._domainkey.a.b.co.uk":       "b.co.uk",
		"co.uk":                        "co.uk",
		"example":                      "example",
		"":                             "",
		"7.2.0.192.in-addr.arpa":       "2.0.192.in-addr.arpa",
		"in-addr.arpa":                 "in-addr.arpa",
		"192.in-addr.arpa":             "192.in-addr.arpa",
		"a b%.x.silent.example":        "silent.example",
		"1.0.8.b.d.0.1.0.0.2.ip6.arpa": "1.0.8.b.d.0.1.0.0.2.ip6.arpa",
		"f.e.d.c.b.a.9.8.7.6.5.4.3.2.1.0.f.e.d.c.b.a.9.8.8.b.d.0.1.0.0.2.ip6.arpa": "b.a.9.8.8.b.d.0.1.0.0.2.ip6.arpa",
	} {
		if got := zoneOf(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestAskerNetwork(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.77": "192.0.2.0/24", "::ffff:192.0.2.77": "192.0.2.0/24", "2001:db8:1:2::3": "2001:db8:1::/48", "fe80::1%eth0": "fe80::/48",
	} {
		if got := NewAsker(netip.MustParseAddr(addr)).network; got != netip.MustParsePrefix(want) {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if NewAsker(netip.Addr{}).network.IsValid() {
		t.Error("no address has a network")
	}
}

// Gates without users are deleted, in whatever order the questions end.
func TestGatesAreForgotten(t *testing.T) {
	p := newPlaces(2, time.Hour)
	from := func(addr string) context.Context {
		return For(t.Context(), NewAsker(netip.MustParseAddr(addr)))
	}
	one, err1 := p.acquire(from("192.0.2.1"), question{name: "a.one.example"})
	two, err2 := p.acquire(Judging(from("192.0.3.1")), question{name: "a.two.example"})
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	late, cancel := context.WithCancel(from("192.0.2.2"))
	ended := make(chan error)
	go func() {
		_, err := p.acquire(late, question{name: "b.one.example"})
		ended <- err
	}()
	for p.waitingAt("one.example") == 0 {
		runtime.Gosched()
	}
	p.release(one)
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err) // it had its place before its caller left
	}
	p.release(p.all.oldest.Back().Value.(*place))
	p.release(two)
	if len(p.zones)+len(p.networks)+len(p.askers) != 0 || p.all.taken != 0 || p.common.taken != 0 || p.all.oldest.Len() != 0 {
		t.Errorf("left: %v %v %v, %+v", p.zones, p.networks, p.askers, p.all)
	}
	p.close()
}

// waitingAt returns how many questions wait for a place in a zone.
func (p *places) waitingAt(zone string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.zones[zone].users - p.zones[zone].taken
}
