package spf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Resolver asks DNS. *net.Resolver has these methods. Tests may use it, but it is
// not exact enough for a daemon (see below).
//
// Names are absolute, with their trailing dot: no search list may be used, and a
// name that looks like an address ("192.0.2.1.") is still a name. They hold raw
// bytes from 0x20 to 0x7e except the backslash. Blanks and percent signs are
// possible, and there are no escapes. (*net.Resolver never asks for a name with
// such characters, and reads the hosts file.)
//
// For a name that does not exist, or has no records of the type, the result is a
// *net.DNSError with IsNotFound, or an empty answer without an error. Every other
// error, wrapped or not, means that there is no answer: SERVFAIL and REFUSED, a
// time-out, an expired context, a loop of aliases. Aliases are followed. Records
// are used even with an error, if it is neither temporary nor a time-out:
// *net.Resolver reports in this way that it left out malformed names. A lookup must
// return soon after ctx is done.
type Resolver interface {
	// LookupTXT returns each TXT record with its strings joined.
	LookupTXT(ctx context.Context, name string) ([]string, error)
	// LookupNetIP returns A records for network "ip4", AAAA for "ip6".
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	// LookupMX returns all MX records.
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	// LookupAddr returns the PTR names of an address in text form.
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

// ask makes one query. An empty answer without an error means that there are no
// records. An error means that DNS gave no answer.
func ask[T any](ctx context.Context, c *check, qtype, name string, lookup func(context.Context, string) ([]T, error)) ([]T, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s %s: %w", qtype, name, err)
	}
	c.queries++
	got, err := lookup(ctx, name)
	if err != nil {
		got, err = settle(got, err)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w", qtype, name, err)
	}
	if c.trace != nil {
		c.emit(Event{Kind: EventQuery, Type: qtype, Name: name, Answers: texts(got), Err: err})
	}
	return got, err
}

// settle decides whether an answer with an error is used.
func settle[T any](got []T, err error) ([]T, error) {
	var dns *net.DNSError
	if !errors.As(err, &dns) || dns.IsTemporary || dns.IsTimeout {
		return nil, err
	}
	if dns.IsNotFound || len(got) > 0 {
		return got, nil
	}
	return nil, err
}

func (c *check) txt(ctx context.Context, name string) ([]string, error) {
	return ask(ctx, c, "TXT", name+".", c.resolver.LookupTXT)
}

// addrs asks for the addresses of a name, of the client's family. For exists it
// always asks for IPv4 (RFC 7208 section 5.7).
func (c *check) addrs(ctx context.Context, name, network string) ([]netip.Addr, error) {
	qtype := "A"
	if network == "ip6" {
		qtype = "AAAA"
	}
	return ask(ctx, c, qtype, name+".", func(ctx context.Context, name string) ([]netip.Addr, error) {
		return c.resolver.LookupNetIP(ctx, network, name)
	})
}

func (c *check) mx(ctx context.Context, name string) ([]*net.MX, error) {
	return ask(ctx, c, "MX", name+".", c.resolver.LookupMX)
}

// ptr waits for at most half of the time that is left. The client chooses the name
// server that answers here. If that server is silent, the fail of a domain must not
// become a temperror.
func (c *check) ptr(ctx context.Context) ([]string, error) {
	if deadline, ok := ctx.Deadline(); ok {
		half, done := context.WithTimeout(ctx, time.Until(deadline)/2)
		defer done()
		ctx = half
	}
	return ask(ctx, c, "PTR", c.ip.String(), c.resolver.LookupAddr)
}

// texts returns answers as texts for a trace.
func texts[T any](answers []T) []string {
	out := make([]string, len(answers))
	for i, a := range answers {
		switch a := any(a).(type) {
		case *net.MX:
			out[i] = fmt.Sprintf("%d %s", a.Pref, a.Host)
		default:
			out[i] = fmt.Sprint(a)
		}
	}
	return out
}

// family returns the network argument of LookupNetIP for the client's addresses.
func (c *check) family() string {
	if c.ip.Is4() {
		return "ip4"
	}
	return "ip6"
}

// reverse holds the client's PTR names, asked for once per check, and whether each
// is validated: whether the client's address is one of its addresses (RFC 7208
// section 5.5).
type reverse struct {
	asked bool
	err   error
	names []reverseName
}

type reverseName struct {
	name      string // lower case, no trailing dot
	checked   bool
	validated bool
}

// reverseNames returns the first MaxNames of the client's PTR names.
func (c *check) reverseNames(ctx context.Context) ([]reverseName, error) {
	if c.reverse.asked {
		return c.reverse.names, c.reverse.err
	}
	names, err := c.ptr(ctx)
	c.reverse.asked, c.reverse.err = true, err
	for _, name := range names[:min(len(names), MaxNames)] {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if queryable(name) {
			c.reverse.names = append(c.reverse.names, reverseName{name: name})
		}
	}
	return c.reverse.names, err
}

// validate looks up the addresses of one PTR name, once. A DNS error counts
// as a mismatch (section 5.5).
func (c *check) validate(ctx context.Context, n *reverseName) bool {
	if !n.checked {
		addrs, _ := c.addrs(ctx, n.name, c.family())
		n.checked = true
		for _, a := range addrs {
			n.validated = n.validated || a.Unmap() == c.ip
		}
	}
	return n.validated
}
