package policy

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/policy/wire"
)

// Peeker is a check whose Check method changes state, such as an entry in a
// store. Peek returns the same verdict and changes nothing.
type Peeker interface {
	Check
	Peek(ctx context.Context, r *Request, prior Signals) (Verdict, error)
}

// Explained is a decision with the action and the time that each check took.
type Explained struct {
	Decision
	Action Action
	Took   []time.Duration // for each of Steps
}

// Explain decides as Decide does, and changes nothing.
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

// peeked wraps a check of a chain. It uses Peek instead of Check where there is
// one, and notes how long it took.
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

// Attribute is one attribute of a request, named as in SMTPD_POLICY_README.
type Attribute struct{ Name, Value string }

// ParseRequest makes a Request of attributes, as if they had come over the
// wire.
func ParseRequest(attributes []Attribute, received time.Time) (*Request, error) {
	attrs := make([]wire.Attr, len(attributes))
	for i, a := range attributes {
		attrs[i] = wire.Attr{Name: a.Name, Value: a.Value, Word: slices.Index(vocabulary(), a.Name) + 1}
	}
	r := new(Request)
	return r, parseRequest(r, attrs, received)
}

// Look returns the same checks as Chain for a policy_context, but does not
// remember them. The error names the words that are not checks that run.
func (r *Router) Look(context string) (Chain, error) {
	if context == "" {
		return r.whole, nil
	}
	return r.pick(contextWords(context))
}

func contextWords(context string) []string {
	return strings.FieldsFunc(strings.ToLower(context), isSeparator)
}
