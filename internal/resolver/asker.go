package resolver

import (
	"context"
	"net/netip"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Asker is on whose behalf questions are asked: one mail or one request of one
// client. It bounds how many places its questions take, together with those of
// the client's neighbours. Questions without an Asker are our own: only
// Config.MaxInFlight bounds them.
type Asker struct{ network netip.Prefix }

// The networks that count as one client: what one customer of a provider has.
const (
	networkBits4 = 24
	networkBits6 = 48
)

// NewAsker returns an Asker for a client. An invalid address has no neighbours.
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

// asking is what a context says about its questions.
type asking struct {
	who    *Asker
	kept   bool // may take the places that are kept from strangers
	listed bool // the zone is the administrator's choice: it has no bound
}

type askingKey struct{}

func askingOf(ctx context.Context) asking {
	if c, ok := ctx.Value(askingKey{}).(*askingContext); ok {
		return c.asking
	}
	return asking{}
}

// askingContext is a context with an asking. It is its own value, which spares a
// request an allocation.
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

// Judging returns a context for the questions on which the verdict on a mail
// rests, such as the policy of its author. Places are kept for them.
func Judging(ctx context.Context) context.Context {
	a := askingOf(ctx)
	a.kept = true
	return &askingContext{ctx, a}
}

// OwnZone returns a context for questions in zones that the administrator has
// chosen. Places are kept for them, and such a zone may take all of them.
func OwnZone(ctx context.Context) context.Context {
	a := askingOf(ctx)
	a.kept, a.listed = true, true
	return &askingContext{ctx, a}
}

// zoneOf returns the name under which one owner's questions are counted: the
// organizational domain by the public suffix list or, in the reverse trees, the
// network. It need not be a zone of the DNS.
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

// lastLabels returns the end of a name.
func lastLabels(name string, n int) string {
	at := len(name)
	for ; n > 0 && at > 0; n-- {
		at = strings.LastIndexByte(name[:at], '.')
	}
	return name[at+1:]
}
