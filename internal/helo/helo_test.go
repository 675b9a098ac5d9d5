package helo

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const zone = `mx.example. A 192.0.2.1
mx.example. AAAA 2001:db8::1
other.example. A 192.0.2.2
text.example. TXT "no address"
alias.example. CNAME mx.example.
xn--bcher-kva.example. A 192.0.2.1
localhost. A 192.0.2.1
1.2.3.4. A 192.0.2.1
`

func TestJudge(t *testing.T) {
	z := resolvertest.NewZone(t, zone)
	z.Fail("down.example", resolvertest.ServFail)
	z.Fail("refused.example", resolvertest.Refused)
	z.Fail("silent.example", resolvertest.Unavailable)
	z.Fail("loop.example", resolvertest.CNAMELoop)
	four := Client{Addr: netip.MustParseAddr("192.0.2.1")}
	named := Client{Addr: four.Addr, Name: "Down.example"}
	for _, c := range []struct {
		helo   string
		client Client
		want   Verdict
		cause  error // of Unknown
	}{
		{"mx.example", four, Leads, nil},
		{"MX.Example.", four, Leads, nil},
		{"alias.example", four, Leads, nil},
		{"bücher.example", four, Leads, nil},
		{"mx.example", Client{Addr: netip.MustParseAddr("::ffff:192.0.2.1")}, Leads, nil},
		{"mx.example", Client{Addr: netip.MustParseAddr("2001:db8::1")}, Leads, nil},
		{"[192.0.2.1]", four, Leads, nil},
		{"[IPv6:2001:db8::1]", Client{Addr: netip.MustParseAddr("2001:db8::1")}, Leads, nil},
		{"down.example", named, Leads, nil},
		{"other.example", four, Misleads, nil},
		{"mx.example", Client{Addr: netip.MustParseAddr("2001:db8::2")}, Misleads, nil},
		{"[192.0.2.2]", four, Misleads, nil},
		{"text.example", four, Misleads, nil},
		{"absent.example", four, Misleads, nil},
		{"localhost", four, Misleads, nil},
		{"1.2.3.4", four, Misleads, nil},
		{"", four, Misleads, nil},
		{"a b.example", four, Misleads, nil},
		{"down.example", four, Unknown, resolver.ServFail},
		{"refused.example", four, Unknown, resolver.Refused},
		{"silent.example", four, Unknown, resolver.ErrTimeout},
		{"loop.example", four, Unknown, resolver.ErrMalformed},
	} {
		got, err := Judge(t.Context(), z, c.helo, c.client)
		if got != c.want || !errors.Is(err, c.cause) || (err != nil) != (got == Unknown) {
			t.Errorf("HELO %q of %+v: %v, %v; want %v, %v", c.helo, c.client, got, err, c.want, c.cause)
		}
	}
}

// answer returns the same answer to every question.
type answer struct {
	addrs []netip.Addr
	err   error
}

func (a answer) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return a.addrs, a.err
}

// Only a proven absence counts. A time-out that is reported as "not found" does
// not count, and neither does the end of the caller's time.
func TestFailuresAreUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want Verdict
	}{
		"absent":              {&net.DNSError{IsNotFound: true}, Misleads},
		"absent, temporarily": {&net.DNSError{IsNotFound: true, IsTemporary: true}, Unknown},
		"time-out":            {&net.DNSError{IsNotFound: true, IsTimeout: true}, Unknown},
		"cancelled":           {context.Canceled, Unknown},
		"not in memory":       {resolver.ErrNotInMemory, Unknown},
		"no answer, no error": {nil, Misleads},
	} {
		got, err := Judge(t.Context(), answer{err: c.err}, "mx.example", Client{Addr: netip.MustParseAddr("192.0.2.1")})
		if got != c.want || (err != nil) != (got == Unknown) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
