package resolver_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// The result of each fault of a single server, over real sockets. The time-out is
// short: silent faults need it for every try.
func TestFaults(t *testing.T) {
	checkLeaks(t)
	for _, c := range []struct {
		fault resolvertest.Fault
		name  string
		want  error // nil: the right answer
		count func(resolver.Stats) uint64
	}{
		{resolvertest.Healthy, "example.org", nil, nil},
		{resolvertest.ServFail, "example.org", resolver.ServFail, func(s resolver.Stats) uint64 { return s.ServFail }},
		{resolvertest.Refused, "example.org", resolver.Refused, func(s resolver.Stats) uint64 { return s.Refused }},
		{resolvertest.NotImp, "example.org", resolver.NotImp, func(s resolver.Stats) uint64 { return s.OtherCodes }},
		{resolvertest.Silence, "example.org", resolver.ErrTimeout, func(s resolver.Stats) uint64 { return s.Timeouts }},
		{resolvertest.Unavailable, "example.org", resolver.ErrTimeout, func(s resolver.Stats) uint64 { return s.Timeouts }},
		{resolvertest.NoUDP, "example.org", resolver.ErrTimeout, func(s resolver.Stats) uint64 { return s.Timeouts }},
		{resolvertest.Truncate, "example.org", nil, func(s resolver.Stats) uint64 { return s.TCP }},
		{resolvertest.AlwaysCut, "example.org", resolver.ErrMalformed, func(s resolver.Stats) uint64 { return s.TCP }},
		{resolvertest.WrongID, "example.org", resolver.ErrTimeout, func(s resolver.Stats) uint64 { return s.Mismatched }},
		{resolvertest.WrongQuestion, "example.org", resolver.ErrTimeout, func(s resolver.Stats) uint64 { return s.Mismatched }},
		{resolvertest.Forged, "example.org", nil, func(s resolver.Stats) uint64 { return s.Mismatched }},
		{resolvertest.Flood, "example.org", nil, func(s resolver.Stats) uint64 { return s.TCP }},
		{resolvertest.Garbage, "example.org", resolver.ErrMalformed, func(s resolver.Stats) uint64 { return s.Malformed }},
		{resolvertest.Short, "example.org", resolver.ErrMalformed, func(s resolver.Stats) uint64 { return s.Malformed }},
		{resolvertest.CNAMELoop, "example.org", resolver.ErrMalformed, func(s resolver.Stats) uint64 { return s.Malformed }},
		{resolvertest.CNAMEChase, "example.org", resolver.ErrMalformed, nil},
		{resolvertest.Many, "example.org", resolver.ErrMalformed, func(s resolver.Stats) uint64 { return s.Malformed }},
		{resolvertest.Claims, "example.org", resolver.ErrMalformed, func(s resolver.Stats) uint64 { return s.Malformed }},
		{resolvertest.NoEDNS, "example.org", nil, nil},
		{resolvertest.BadVersion, "example.org", nil, nil},
		{resolvertest.NoSOA, "v4.org", resolver.ErrNoData, nil},
		{resolvertest.BareCNAME, "alias.org", nil, nil},
	} {
		t.Run(string(c.fault), func(t *testing.T) {
			t.Parallel()
			srv := resolvertest.New(t, zone)
			srv.Fail("*", c.fault)
			timeout := timeoutFor(c.want)
			if c.fault == resolvertest.WrongID || c.fault == resolvertest.WrongQuestion {
				timeout *= 10 // the wrong answer comes, and a busy machine may need a while for it
			}
			r := open(t, resolver.Config{Servers: []string{srv.Addr()}, Timeout: timeout})
			got, err := r.LookupTXT(t.Context(), c.name)
			checkOutcome(t, got, err, c.want, srv.Addr())
			if c.count != nil && c.count(r.Stats()) == 0 {
				t.Errorf("not counted: %+v", r.Stats())
			}
			if n := srv.Total(); n > 12 {
				t.Errorf("%d queries for one lookup", n)
			}
		})
	}
}

// timeoutFor returns a short time-out for silent faults, and one that is never
// reached for the others.
func timeoutFor(want error) time.Duration {
	if errors.Is(want, resolver.ErrTimeout) {
		return 30 * time.Millisecond
	}
	return time.Minute
}

func checkOutcome(t *testing.T, got []string, err, want error, server string) {
	t.Helper()
	if want == nil {
		if err != nil || len(got) != 2 || !strings.HasPrefix(got[0], "v=spf1") {
			t.Errorf("%q, %v", got, err)
		}
		return
	}
	var dns *net.DNSError
	if !errors.Is(err, want) || !errors.As(err, &dns) {
		t.Fatalf("%v, want %v", err, want)
	}
	notFound := errors.Is(want, resolver.ErrNoData)
	if dns.IsNotFound != notFound || dns.IsTemporary == notFound || dns.IsTimeout != errors.Is(want, resolver.ErrTimeout) {
		t.Errorf("%#v", dns)
	}
	if !notFound && dns.Server != server {
		t.Errorf("server %q is lost", dns.Server)
	}
}

func TestHealedNameAnswers(t *testing.T) {
	z := resolvertest.NewZone(t, zone)
	z.Fail("example.org", resolvertest.ServFail)
	_, err := z.LookupTXT(t.Context(), "example.org")
	checkOutcome(t, nil, err, resolver.ServFail, "127.0.0.1:53")
	z.Fail("example.org", resolvertest.Healthy)
	got, err := z.LookupTXT(t.Context(), "example.org")
	checkOutcome(t, got, err, nil, "")
}

// With a second server that works, callers do not notice any fault of the first.
func TestSecondServerAnswers(t *testing.T) {
	silent := map[resolvertest.Fault]bool{
		resolvertest.Silence: true, resolvertest.Unavailable: true, resolvertest.NoUDP: true,
		resolvertest.WrongID: true, resolvertest.WrongQuestion: true,
	}
	for _, fault := range resolvertest.Faults() {
		if fault == resolvertest.CNAMEChase { // each link is a right answer
			continue
		}
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			bad, good := resolvertest.New(t, zone), resolvertest.New(t, zone)
			bad.Fail("*", fault)
			timeout := time.Minute
			if silent[fault] {
				timeout = 250 * time.Millisecond // and enough tries for a slow machine
			}
			r := open(t, resolver.Config{Servers: []string{bad.Addr(), good.Addr()}, Timeout: timeout, Tries: 16, CacheBytes: -1})
			for range 2 { // each is first once
				got, err := r.LookupTXT(t.Context(), "example.org")
				checkOutcome(t, got, err, nil, "")
			}
		})
	}
}

func TestUnreachableServer(t *testing.T) {
	gone, good := resolvertest.New(t, zone), resolvertest.New(t, zone)
	gone.Close()
	alone := open(t, resolver.Config{Servers: []string{gone.Addr()}, Timeout: time.Minute})
	got, err := alone.LookupTXT(t.Context(), "example.org")
	checkOutcome(t, got, err, resolver.ErrUnreachable, gone.Addr())
	if s := alone.Stats(); s.CacheEntries != 0 || s.Servers[0].Up {
		t.Errorf("%+v", s)
	}
	both := open(t, resolver.Config{Servers: []string{gone.Addr(), good.Addr()}, Timeout: time.Minute, CacheBytes: -1})
	for range 4 {
		got, err := both.LookupTXT(t.Context(), "example.org")
		checkOutcome(t, got, err, nil, "")
	}
	if n := both.Stats().Unreachable; n != 1 {
		t.Errorf("%d tries at a dead server", n)
	}
}

// A server that does not know EDNS is asked without it from then on.
func TestEDNSIsRememberedAsMissing(t *testing.T) {
	srv := resolvertest.New(t, zone)
	srv.Fail("*", resolvertest.NoEDNS)
	r := open(t, resolver.Config{Servers: []string{srv.Addr()}, Timeout: time.Minute})
	for _, name := range []string{"example.org", "alias.org"} {
		if _, err := r.LookupTXT(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	with := 0
	for _, q := range srv.Queries() {
		if q.EDNS {
			with++
		}
	}
	if with != 1 || srv.Total() != 3 {
		t.Errorf("%d of %d queries with EDNS", with, srv.Total())
	}
}

// A chain of bare CNAMEs is followed a bounded number of times.
func TestChaseIsBounded(t *testing.T) {
	srv := resolvertest.New(t, zone)
	srv.Fail("*", resolvertest.CNAMEChase)
	r := open(t, resolver.Config{Servers: []string{srv.Addr()}, Timeout: time.Minute})
	if _, err := r.LookupTXT(t.Context(), "example.org"); !errors.Is(err, resolver.ErrMalformed) {
		t.Fatal(err)
	}
	if n := srv.Total(); n != 5 {
		t.Errorf("%d questions", n)
	}
}

// The second packet of a try comes from the same port, under the same id.
func TestLostPacketIsSentAgain(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	served := make(chan error, 1)
	go func() { served <- answerTheSecond(conn) }()
	r := open(t, resolver.Config{Servers: []string{conn.LocalAddr().String()}, Timeout: 2 * time.Second})
	_, err = r.LookupTXT(t.Context(), "example.org")
	if !errors.Is(err, resolver.NXDomain) {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if s := r.Stats(); s.Resent != 1 || s.Timeouts != 0 {
		t.Errorf("%+v", s)
	}
}

// answerTheSecond drops a packet and answers NXDOMAIN to its repetition.
func answerTheSecond(conn net.PacketConn) error {
	var first, second [512]byte
	n, from, err := conn.ReadFrom(first[:])
	if err != nil {
		return err
	}
	m, again, err := conn.ReadFrom(second[:])
	if err != nil {
		return err
	}
	if from.String() != again.String() || !bytes.Equal(first[:n], second[:m]) {
		return fmt.Errorf("%v sent %x, %v sent %x", from, first[:n], again, second[:m])
	}
	second[2] |= 0x80 // a response
	second[3] = 3
	_, err = conn.WriteTo(second[:m], again)
	return err
}
