package resolver_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// The methods are those of net.Resolver, so that callers may declare either.
var _ interface {
	LookupTXT(context.Context, string) ([]string, error)
	LookupMX(context.Context, string) ([]*net.MX, error)
	LookupAddr(context.Context, string) ([]string, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
} = (*resolver.Resolver)(nil)

const zone = `
$TTL 120
org.                 IN SOA ns.org. first\.last.org. 1 3600 600 86400 40
example.org.         IN A    192.0.2.1
example.org.         IN A    192.0.2.2
example.org.         IN AAAA 2001:db8::1
example.org.     60  IN TXT  "v=spf1 " "mx -all"
example.org.         IN TXT  "quote\" back\\slash \255\000 \195\164"
example.org.         IN MX   20 b.example.org.
example.org.         IN MX   10 a.example.org.
example.org.         IN NS   ns.org.
null.org.            IN MX   0 .
badmx.org.           IN MX   10 a\032b.example.org.
badmx.org.           IN MX   20 mx.example.org.
onlybadmx.org.       IN MX   10 a\(b.example.org.
alias.org.       30  IN CNAME Alias2.org.
alias2.org.          IN CNAME example.org.
toabsent.org.        IN CNAME absent.org.
tonodata.org.        IN CNAME v4.org.
v4.org.              IN A    192.0.2.4
v6.org.              IN AAAA 2001:db8::6
a\032b%c.spf.org.    IN TXT  "odd name"
\255.org.            IN TXT  "not utf-8"
*.wild.org.          IN TXT  "wild"
below.ent.org.       IN TXT  "x"
1.2.0.192.in-addr.arpa. IN PTR example.org.
1.2.0.192.in-addr.arpa. IN PTR bad\010name.example.org.
2.2.0.192.in-addr.arpa. IN PTR bad\010name.example.org.
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. IN PTR six.example.org.
`

func TestLookups(t *testing.T) {
	checkLeaks(t)
	srv := resolvertest.New(t, zone)
	r := srv.Resolver(t)
	ctx := t.Context()
	txts := func(name string) func() (any, error) {
		return func() (any, error) { return must(r.LookupTXT(ctx, name)) }
	}
	ips := func(network, name string) func() (any, error) {
		return func() (any, error) { return must(r.LookupNetIP(ctx, network, name)) }
	}
	addr := func(ip string) func() (any, error) {
		return func() (any, error) { return must(r.LookupAddr(ctx, ip)) }
	}
	mx := func(name string) func() (any, error) {
		return func() (any, error) { list, err := r.LookupMX(ctx, name); return must(hosts(list), err) }
	}
	for _, c := range []struct {
		name string
		do   func() (any, error)
		want string // records joined, or the error's cause
		err  error
	}{
		{"txt", txts("Example.ORG"), "v=spf1 mx -all|quote\" back\\slash \xff\x00 \xc3\xa4", nil},
		{"txt through aliases", txts("alias.org."), "v=spf1 mx -all|quote\" back\\slash \xff\x00 \xc3\xa4", nil},
		{"space and percent", txts("a b%c.SPF.org"), "odd name", nil},
		{"byte outside ascii", txts("\xff.org"), "not utf-8", nil},
		{"wildcard", txts("x.y.wild.org"), "wild", nil},
		{"nodata", txts("v4.org"), "", resolver.ErrNoData},
		{"empty non-terminal", txts("ent.org"), "", resolver.ErrNoData},
		{"nxdomain", txts("absent.org"), "", resolver.NXDomain},
		{"alias to nxdomain", txts("toabsent.org"), "", resolver.NXDomain},
		{"alias to nodata", txts("tonodata.org"), "", resolver.ErrNoData},
		{"no name", txts(""), "", resolver.ErrBadName},
		{"long label", txts(strings.Repeat("x", 64) + ".org"), "", resolver.ErrBadName},
		{"no search list, no hosts file", ips("ip", "localhost"), "", resolver.NXDomain},
		{"an address is a name", ips("ip4", "192.0.2.1"), "", resolver.NXDomain},
		{"both families", ips("ip", "example.org"), "192.0.2.1|192.0.2.2|2001:db8::1", nil},
		{"ip4", ips("ip4", "example.org"), "192.0.2.1|192.0.2.2", nil},
		{"ip6", ips("ip6", "alias2.org"), "2001:db8::1", nil},
		{"ip4 of v6", ips("ip4", "v6.org"), "", resolver.ErrNoData},
		{"ip of v6", ips("ip", "v6.org"), "2001:db8::6", nil},
		{"ptr, control characters left out", addr("192.0.2.1"), "example.org.", nil},
		{"ptr, nothing else", addr("192.0.2.2"), "", resolver.ErrNoData},
		{"ptr v6", addr("2001:db8::1"), "six.example.org.", nil},
		{"ptr mapped", addr("::ffff:192.0.2.1"), "example.org.", nil},
		{"ptr absent", addr("192.0.2.3"), "", resolver.NXDomain},
		{"ptr of no address", addr("example.org"), "", resolver.ErrBadName},
		{"mx", mx("example.org"), "a.example.org.|b.example.org.", nil},
		{"null mx", mx("null.org"), ".", nil},
		{"mx that is no host name", mx("badmx.org"), "a b.example.org.|mx.example.org.", nil},
		{"only such mx", mx("onlybadmx.org"), "a(b.example.org.", nil},
	} {
		got, err := c.do()
		if !errors.Is(err, c.err) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.err)
		}
		if c.err != nil {
			var dns *net.DNSError
			if !errors.As(err, &dns) || !dns.IsNotFound || dns.IsTemporary || dns.IsTimeout {
				t.Errorf("%s: %#v is no proven absence", c.name, err)
			}
			continue
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if srv.Count("", "") != 0 || srv.Total() == 0 {
		t.Error("an impossible name was asked")
	}
}

// must joins what a lookup returned.
func must[T any](list []T, err error) (any, error) {
	var out []string
	for _, v := range list {
		switch v := any(v).(type) {
		case string:
			out = append(out, v)
		case netip.Addr:
			out = append(out, v.String())
		}
	}
	return strings.Join(out, "|"), err
}

func hosts(list []*net.MX) []string {
	var out []string
	for _, mx := range list {
		out = append(out, mx.Host)
	}
	return out
}

func TestLookupNetIPNetworks(t *testing.T) {
	r := resolvertest.NewZone(t, zone)
	if _, err := r.LookupNetIP(t.Context(), "tcp", "example.org"); err == nil {
		t.Error("network tcp taken")
	}
}

// A failure for one family is an error only when the other has no address.
func TestLookupNetIPHalfFailed(t *testing.T) {
	z := resolvertest.NewZone(t, zone)
	z.Fail("absent.org", resolvertest.ServFail)
	if _, err := z.LookupNetIP(t.Context(), "ip", "absent.org"); !errors.Is(err, resolver.ServFail) {
		t.Errorf("%v", err)
	}
}

func TestQuery(t *testing.T) {
	z := resolvertest.NewZone(t, zone)
	a, err := z.Query(t.Context(), "ALIAS.org", resolver.TypeTXT)
	if err != nil || a.Status != resolver.Found || a.Name != "example.org." || a.TTL.Seconds() != 30 || a.AD || len(a.TXT) != 2 {
		t.Errorf("%+v, %v", a, err)
	}
	a, err = z.Query(t.Context(), "tonodata.org", resolver.TypeAAAA)
	if err != nil || a.Status != resolver.StatusNoData || a.TTL.Seconds() != 40 || a.Name != "v4.org." {
		t.Errorf("%+v, %v", a, err)
	}
	a, err = z.Query(t.Context(), "absent.org", resolver.TypeA)
	if err != nil || a.Status != resolver.StatusNXDomain || a.TTL.Seconds() != 40 {
		t.Errorf("%+v, %v", a, err)
	}
	a, err = z.Query(t.Context(), "alias.org", resolver.TypeCNAME)
	if err != nil || !slices.Equal(a.Names, []string{"Alias2.org."}) {
		t.Errorf("%+v, %v", a, err)
	}
	var refused *net.DNSError
	if _, err = z.Query(t.Context(), "example.org", 255); !errors.As(err, &refused) || refused.IsTemporary || !errors.Is(err, resolver.ErrBadType) {
		t.Errorf("ANY: %v", err)
	}
	if _, err = z.Query(t.Context(), ".", resolver.TypeNS); err != nil {
		t.Errorf("root: %v", err)
	}
}

// Types without a field of their own come as miekg/dns has them, with the AD bit
// and the TTL of the answer.
func TestQueryGeneric(t *testing.T) {
	srv := resolvertest.New(t, zone+"_25._tcp.mx.org. 70 IN TLSA 3 1 1 "+strings.Repeat("ab", 32)+"\n")
	srv.SetAD(true)
	r := srv.Resolver(t)
	a, err := r.Query(t.Context(), "_25._tcp.MX.org", resolver.TypeTLSA)
	if err != nil || !a.AD || a.TTL.Seconds() != 70 || len(a.Records) != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
	if tlsa, ok := a.Records[0].(*dns.TLSA); !ok || tlsa.Usage != 3 || tlsa.Certificate != strings.Repeat("ab", 32) {
		t.Errorf("%v", a.Records[0])
	}
	a, err = r.Query(t.Context(), "org", resolver.TypeSOA)
	if err != nil || len(a.Records) != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
	if soa, ok := a.Records[0].(*dns.SOA); !ok || soa.Ns != "ns.org." || soa.Minttl != 40 {
		t.Errorf("%v", a.Records[0])
	}
	if a, err := r.Query(t.Context(), "v4.org", resolver.TypeTLSA); err != nil || a.Status != resolver.StatusNoData {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestADOnlyFromTrustedServers(t *testing.T) {
	srv := resolvertest.New(t, zone)
	srv.SetAD(true)
	for _, c := range []struct {
		trust []netip.Prefix
		want  bool
	}{
		{nil, false},
		{[]netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, false},
		{[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, true},
	} {
		r := open(t, resolver.Config{Servers: []string{srv.Addr()}, TrustAD: c.trust})
		for range 2 { // asked, and cached
			a, err := r.Query(t.Context(), "example.org", resolver.TypeTXT)
			if err != nil || a.AD != c.want {
				t.Errorf("trusting %v: AD %v, %v", c.trust, a.AD, err)
			}
		}
	}
	srv.SetAD(false)
	a, err := srv.Resolver(t).Query(t.Context(), "example.org", resolver.TypeTXT)
	if err != nil || a.AD {
		t.Errorf("AD made up: %+v, %v", a, err)
	}
}

// An answer made of several replies is validated only if each of them was.
func TestADOfAChase(t *testing.T) {
	z := resolvertest.NewZone(t, zone)
	z.SetAD(true)
	z.Fail("*", resolvertest.BareCNAME)
	for trusted, want := range map[string]bool{"127.0.0.0/30": true, "127.0.0.1/32": false, "127.0.0.2/32": false} {
		r := open(t, resolver.Config{
			Servers:  []string{"127.0.0.1", "127.0.0.2"}, // which take turns
			TrustAD:  []netip.Prefix{netip.MustParsePrefix(trusted)},
			Exchange: z.Exchange,
		})
		a, err := r.Query(t.Context(), "alias.org", resolver.TypeTXT)
		if err != nil || a.AD != want || a.TTL.Seconds() != 30 {
			t.Errorf("trusting %s: %+v, %v", trusted, a, err)
		}
	}
}

func open(t testing.TB, c resolver.Config) *resolver.Resolver {
	t.Helper()
	r, err := resolver.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// checkLeaks runs after the cleanups of a test, when it is registered first, and
// reports goroutines of the package. A goroutine that is about to end may need a
// moment. It is not for a test with others beside it, whose goroutines it would find.
func checkLeaks(t *testing.T) {
	buf := make([]byte, 1<<20)
	t.Cleanup(func() {
		for range 10_000 {
			stacks := string(buf[:runtime.Stack(buf, true)])
			if !strings.Contains(stacks, "resolver.(*Resolver)") {
				return
			}
			runtime.Gosched()
		}
		t.Errorf("goroutines left:\n%s", buf)
	})
}
