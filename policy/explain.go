package policy

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/policy/wire"
)

// Peeker is a check that leaves something behind when it is asked, such as a
// sighting in a store. Peek gives the verdict that Check would, and leaves nothing.
type Peeker interface {
	Check
	Peek(ctx context.Context, r *Request, prior Signals) (Verdict, error)
}

// Explained is what a chain would decide, and how it came to it.
type Explained struct {
	Decision
	Action Action
	Took   []time.Duration // for each of Steps
}

// Explain decides as Decide does, and leaves nothing behind.
func (c Chain) Explain(ctx context.Context, r *Request) Explained {
	var x Explained
	watched := slices.Clone(c)
	for i := range watched {
		watched[i].Check = peeked{watched[i].Check, &x.Took}
	}
	x.Decision = watched.Decide(ctx, r)
	x.Action = action(r, &x.Decision)
	return x
}

// peeked replaces, in a chain, a check that must leave nothing behind. It notes how
// long the check took.
type peeked struct {
	of   Check
	took *[]time.Duration
}

func (p peeked) Name() string { return p.of.Name() }

func (p peeked) Check(ctx context.Context, r *Request, prior Signals) (Verdict, error) {
	begun := time.Now()
	defer func() { *p.took = append(*p.took, time.Since(begun)) }()
	if peeker, ok := p.of.(Peeker); ok {
		return peeker.Peek(ctx, r, prior)
	}
	return p.of.Check(ctx, r, prior)
}

// Attribute is one of a request, as SMTPD_POLICY_README names it.
type Attribute struct{ Name, Value string }

// ParseRequest types the attributes of a request, as of one that came over the wire.
func ParseRequest(attributes []Attribute, received time.Time) (*Request, error) {
	attrs := make([]wire.Attr, len(attributes))
	for i, a := range attributes {
		attrs[i] = wire.Attr{Name: a.Name, Value: a.Value, Word: slices.Index(vocabulary(), a.Name) + 1}
	}
	r := new(Request)
	return r, parseRequest(r, attrs, received)
}

// Look returns what Chain does for a policy_context, and leaves nothing behind. The
// error is about words that are no check that runs.
func (r *Router) Look(context string) (Chain, error) {
	if context == "" {
		return r.all, nil
	}
	return r.pick(contextWords(context))
}

func contextWords(context string) []string {
	return strings.FieldsFunc(strings.ToLower(context), isSeparator)
}
