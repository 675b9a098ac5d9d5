package resolver

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
)

// lookups are the lookup methods that Resolver and Memory share.
type lookups struct{ from source }

// source returns the outcome of a question, or the error that ended the wait for
// it.
type source interface {
	lookup(ctx context.Context, q question) (outcome, error)
}

// Query asks for the records of one type (a Type constant). A name without such
// records is an answer (Answer.Status), not an error; an error is always a
// [*net.DNSError]: temporary when the servers or the caller's context ended without
// an answer, IsNotFound when no query can carry the name. The error holds the name,
// so callers whose names contain a secret must not show it.
func (l lookups) Query(ctx context.Context, name string, qtype uint16) (Answer, error) {
	if !supported(qtype) {
		return Answer{}, unaskable(name, fmt.Errorf("%w: %d", ErrBadType, qtype))
	}
	asked, err := canonical(name)
	if err != nil {
		return Answer{}, unaskable(name, err)
	}
	out, err := l.from.lookup(ctx, question{asked, qtype})
	if err != nil {
		return Answer{}, gaveUp(name, err)
	}
	if out.fail != nil {
		return Answer{}, out.fail.dnsError(name)
	}
	return out.answer, nil
}

// records is Query for the methods below, where an absence is an error.
func (l lookups) records(ctx context.Context, name string, qtype uint16) (Answer, error) {
	a, err := l.Query(ctx, name, qtype)
	if err != nil {
		return a, err
	}
	switch a.Status {
	case StatusNXDomain:
		return a, absent(name, NXDomain)
	case StatusNoData:
		return a, absent(name, ErrNoData)
	}
	return a, nil
}

// LookupTXT returns one string for each TXT record, its parts joined.
func (l lookups) LookupTXT(ctx context.Context, name string) ([]string, error) {
	a, err := l.records(ctx, name, TypeTXT)
	return slices.Clone(a.TXT), err
}

// LookupMX returns all MX records by preference, equal ones in random order. The
// hosts have their last dot and may hold any bytes. None is left out, because SPF
// also counts and asks for those that are not host names.
func (l lookups) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	a, err := l.records(ctx, name, TypeMX)
	if err != nil {
		return nil, err
	}
	var out []*net.MX
	for _, mx := range a.MX {
		out = append(out, &net.MX{Host: mx.Host, Pref: mx.Pref})
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	slices.SortStableFunc(out, func(a, b *net.MX) int { return cmp.Compare(a.Pref, b.Pref) })
	return out, nil
}

// LookupAddr returns the names in the PTR records of an address that are host
// names. They are claims of the owner of the address, and not confirmed.
func (l lookups) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	ip, err := netip.ParseAddr(addr)
	if err != nil || ip.Zone() != "" {
		return nil, unaskable(addr, fmt.Errorf("%w: not an IP address", ErrBadName))
	}
	name := reverseName(ip)
	a, err := l.records(ctx, name, TypePTR)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, host := range a.Names {
		if isHostname(host) {
			out = append(out, host)
		}
	}
	if len(out) == 0 {
		return nil, absent(name, fmt.Errorf("%w that names a host", ErrNoData))
	}
	return out, nil
}

// LookupNetIP returns the addresses of host: of both families for network
// "ip", of one for "ip4" or "ip6". With "ip" a failure of one family is an
// error only when the other has no address.
func (l lookups) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	switch network {
	case "ip4":
		a, err := l.records(ctx, host, TypeA)
		return slices.Clone(a.Addrs), err
	case "ip6":
		a, err := l.records(ctx, host, TypeAAAA)
		return slices.Clone(a.Addrs), err
	case "ip":
		return l.bothFamilies(ctx, host)
	}
	return nil, net.UnknownNetworkError(network)
}

func (l lookups) bothFamilies(ctx context.Context, host string) ([]netip.Addr, error) {
	type result struct {
		answer Answer
		err    error
	}
	six := make(chan result, 1)
	go func() {
		a, err := l.records(ctx, host, TypeAAAA)
		six <- result{a, err}
	}()
	four, err4 := l.records(ctx, host, TypeA)
	other := <-six
	addrs := slices.Concat(four.Addrs, other.answer.Addrs)
	if len(addrs) > 0 {
		return addrs, nil
	}
	return nil, lessCertain(err4, other.err)
}

// lessCertain returns the temporary one of two errors, if there is one.
func lessCertain(a, b error) error {
	if e, ok := a.(*net.DNSError); ok && e.IsTemporary {
		return a
	}
	return b
}
