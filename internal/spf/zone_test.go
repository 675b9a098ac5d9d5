package spf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
)

// zone is DNS for tests: records by lower-case name without trailing dot, and
// by type. It answers as the Resolver contract says, and counts questions.
type zone struct {
	records map[string]map[string][]string
	// broken names fail for every type that has no records: TIMEOUT,
	// SERVFAIL, REFUSED, WRAPPED (a temporary error inside another) or LOOP.
	broken  map[string]string
	queries atomic.Int64
	// onQuery runs before each answer.
	onQuery func(name string)
}

func newZone() *zone {
	return &zone{records: map[string]map[string][]string{}, broken: map[string]string{}}
}

// add puts one record; a type that names a failure breaks the name.
func (z *zone) add(name, qtype, value string) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	switch qtype {
	case "TIMEOUT", "SERVFAIL", "REFUSED", "WRAPPED", "LOOP":
		z.broken[name] = qtype
		return
	}
	if z.records[name] == nil {
		z.records[name] = map[string][]string{}
	}
	z.records[name][qtype] = append(z.records[name][qtype], value)
}

// find follows aliases, at most eight, and gives the records or the error.
func (z *zone) find(ctx context.Context, name, qtype string) ([]string, error) {
	z.queries.Add(1)
	if z.onQuery != nil {
		z.onQuery(name)
	}
	if !strings.HasSuffix(name, ".") {
		return nil, fmt.Errorf("name %q is not absolute", name)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	asked := name
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for range 8 {
		if got := z.records[name][qtype]; len(got) > 0 {
			return got, nil
		}
		if how := z.broken[name]; how != "" {
			return nil, failure(asked, how)
		}
		alias := z.records[name]["CNAME"]
		if len(alias) == 0 {
			return nil, &net.DNSError{Err: "no such host", Name: asked, IsNotFound: true}
		}
		name = strings.ToLower(strings.TrimSuffix(alias[0], "."))
	}
	return nil, failure(asked, "LOOP")
}

func failure(name, how string) error {
	switch how {
	case "TIMEOUT":
		return &net.DNSError{Err: "i/o timeout", Name: name, IsTimeout: true}
	case "SERVFAIL":
		return &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	case "WRAPPED":
		return fmt.Errorf("resolver: %w", &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true})
	}
	return &net.DNSError{Err: strings.ToLower(how), Name: name} // neither temporary nor absent
}

func (z *zone) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return z.find(ctx, name, "TXT")
}

func (z *zone) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	qtype, ok := map[string]string{"ip4": "A", "ip6": "AAAA"}[network]
	if !ok {
		return nil, errors.New("network " + network)
	}
	got, err := z.find(ctx, host, qtype)
	var out []netip.Addr
	for _, s := range got {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, err
}

func (z *zone) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	got, err := z.find(ctx, name, "MX")
	var out []*net.MX
	for _, s := range got {
		var mx net.MX
		if _, err := fmt.Sscan(s, &mx.Pref); err != nil {
			return nil, err
		}
		_, mx.Host, _ = strings.Cut(s, " ")
		out = append(out, &mx)
	}
	return out, err
}

func (z *zone) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	return z.find(ctx, arpaName(netip.MustParseAddr(addr)), "PTR")
}

func arpaName(ip netip.Addr) string {
	suffix := ".ip6.arpa."
	if ip.Is4() {
		suffix = ".in-addr.arpa."
	}
	parts := strings.Split(dotted(ip), ".")
	var b strings.Builder
	for i := range parts {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(parts[len(parts)-1-i])
	}
	return b.String() + suffix
}
