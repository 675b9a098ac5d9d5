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

// Resolver asks DNS. *net.Resolver has these methods, and tests may use it;
// it is not exact enough for a daemon (see below).
//
// Names arrive absolute, with their trailing dot: no search list may be
// applied, and a name that looks like an address ("192.0.2.1.") is still a
// name. They hold raw bytes 0x20 to 0x7e without a backslash, blanks and
// percent signs included; nothing in them is an escape. (*net.Resolver never
// asks for a name with such characters, and reads the hosts file.)
//
// Answers: a name that does not exist, and one without records of the type,
// are a *net.DNSError with IsNotFound, or an empty answer without error. Every
// other error means that DNS could not tell: SERVFAIL and REFUSED, a time-out,
// an expired context, a loop of aliases; wrapped or not. Aliases are followed.
// Records that come with an error that is neither temporary nor a time-out
// are used: that is how *net.Resolver reports malformed names it left out.
// A lookup must return soon after ctx is done.
type Resolver interface {
	// LookupTXT returns each TXT record with its strings joined.
	LookupTXT(ctx context.Context, name string) ([]string, error)
	// LookupNetIP returns A records for network "ip4", AAAA for "ip6".
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	// LookupMX returns the MX records, all of them.
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	// LookupAddr returns the PTR names of an address in text form.
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

// ask makes one query. An empty answer without error means that DNS said
// there is nothing; an error means that DNS could not tell.
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

// settle decides what an answer with an error is worth.
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

// addrs asks for the addresses of a name: of the client's family, or for
// exists always IPv4 (RFC 7208 section 5.7).
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

// ptr waits for half of the time that is left at most. The client chooses whose
// name server answers here: by silence alone it must not turn the fail of a domain
// that uses its name into a temperror.
func (c *check) ptr(ctx context.Context) ([]string, error) {
	if deadline, ok := ctx.Deadline(); ok {
		half, done := context.WithTimeout(ctx, time.Until(deadline)/2)
		defer done()
		ctx = half
	}
	return ask(ctx, c, "PTR", c.ip.String(), c.resolver.LookupAddr)
}

// texts spells answers for a trace.
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

// family is the network of the client's addresses, in LookupNetIP's words.
func (c *check) family() string {
	if c.ip.Is4() {
		return "ip4"
	}
	return "ip6"
}

// reverse holds the client's PTR names, asked for once per check, and what is
// known of each: whether its addresses hold the client's (RFC 7208 section 5.5).
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
