package resolver

import (
	"context"
	"net/netip"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Asker is the one for whom questions are asked: one mail or one request of a
// client. The number of places that its questions take is bounded, and so is the
// number for all clients of the same network. Questions without an Asker are our
// own: only Config.MaxInFlight bounds them.
type Asker struct{ network netip.Prefix }

// The prefix lengths of the networks that count as one client: the size that a
// provider assigns to one customer.
const (
	networkBits4 = 24
	networkBits6 = 48
)

// NewAsker returns an Asker for a client. An invalid address belongs to no network.
func NewAsker(client netip.Addr) *Asker {
	client = client.Unmap().WithZone("")
	bits := networkBits4
	if client.Is6() {
		bits = networkBits6
	}
	network, err := client.Prefix(bits)
	if err != nil {
		return &Asker{}
	}
	return &Asker{network}
}

// asking holds what a context says about the questions asked with it.
type asking struct {
	who    *Asker
	kept   bool // may take the places that are reserved
	listed bool // the administrator chose the zone: it has no limit of its own
}

type askingKey struct{}

func askingOf(ctx context.Context) asking {
	if c, ok := ctx.Value(askingKey{}).(*askingContext); ok {
		return c.asking
	}
	return asking{}
}

// askingContext is a context with an asking. It returns itself as the value, which
// saves one allocation for each request.
type askingContext struct {
	context.Context
	asking
}

// Value implements context.Context.
func (c *askingContext) Value(key any) any {
	if key == (askingKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// For returns a context whose questions are asked on behalf of who.
func For(ctx context.Context, who *Asker) context.Context {
	a := askingOf(ctx)
	a.who = who
	return &askingContext{ctx, a}
}

// Judging returns a context for the questions that decide about a mail, such as the
// policy of its author. Places are reserved for them.
func Judging(ctx context.Context) context.Context {
	a := askingOf(ctx)
	a.kept = true
	return &askingContext{ctx, a}
}

// OwnZone returns a context for questions in zones that the administrator has
// chosen. Places are reserved for them, and one such zone may take all places.
func OwnZone(ctx context.Context) context.Context {
	a := askingOf(ctx)
	a.kept, a.listed = true, true
	return &askingContext{ctx, a}
}

// zoneOf returns the name under which the questions about names of one owner are
// counted. It is the organizational domain by the public suffix list or, in the
// reverse trees, the network. It need not be a DNS zone.
func zoneOf(name string) string {
	switch {
	case strings.HasSuffix(name, ".in-addr.arpa"):
		return lastLabels(name, 2+networkBits4/8)
	case strings.HasSuffix(name, ".ip6.arpa"):
		return lastLabels(name, 2+networkBits6/4)
	}
	if zone, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return zone
	}
	return name
}

// lastLabels returns the last n labels of a name.
func lastLabels(name string, n int) string {
	at := len(name)
	for ; n > 0 && at > 0; n-- {
		at = strings.LastIndexByte(name[:at], '.')
	}
	return name[at+1:]
}
