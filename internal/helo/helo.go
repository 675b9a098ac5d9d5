// Package helo decides whether the name in HELO leads to the client.
//
// The verdict has three values. Unknown means that DNS failed. It comes with an
// error, and a caller must not use it as evidence for or against the client.
package helo

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/resolver"
)

// Verdict is the result for a HELO argument.
type Verdict uint8

// The verdicts.
const (
	Unknown  Verdict = iota // DNS failed
	Leads                   // it is the client's address or name, or a name with this address
	Misleads                // it belongs to another host, or is not a full name
)

// Resolver looks up addresses; spf.Resolver explains its errors.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Client is the host that said HELO.
type Client struct {
	Addr netip.Addr
	// Name is its reverse name if that leads back to Addr, else "". A HELO with
	// this name needs no DNS query.
	Name string
}

// Judge compares a HELO argument with the client. An address literal must be
// the client's address. A name must be a full one, not a number. It must be the
// client's name or have its address. The error is nil unless the verdict is
// Unknown.
func Judge(ctx context.Context, r Resolver, argument string, c Client) (Verdict, error) {
	addr := c.Addr.Unmap().WithZone("")
	if literal, ok := mailaddr.ParseHeloLiteral(argument); ok {
		return verdict(literal == addr), nil
	}
	name, err := mailaddr.ParseDomain(argument)
	if err != nil || !strings.Contains(name, ".") || mailaddr.LooksNumeric(name) {
		return Misleads, nil
	}
	if own, err := mailaddr.ParseDomain(c.Name); err == nil && own == name {
		return Leads, nil
	}
	has, err := HasAddress(ctx, r, name+".", addr)
	if err != nil {
		return Unknown, fmt.Errorf("HELO %s: %w", name, err)
	}
	return verdict(has), nil
}

func verdict(leads bool) Verdict {
	if leads {
		return Leads
	}
	return Misleads
}

// HasAddress reports whether an absolute name has an address, which must be
// neither IPv4-mapped nor zoned. An error means that DNS failed.
func HasAddress(ctx context.Context, r Resolver, name string, addr netip.Addr) (bool, error) {
	network := "ip4"
	if addr.Is6() {
		network = "ip6"
	}
	addrs, err := r.LookupNetIP(ctx, network, name)
	if err != nil && !resolver.IsAbsent(err) {
		return false, fmt.Errorf("addresses of %s: %w", name, err)
	}
	for _, a := range addrs {
		if a.Unmap() == addr {
			return true, nil
		}
	}
	return false, nil
}
