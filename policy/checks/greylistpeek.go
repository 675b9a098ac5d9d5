package checks

import (
	"context"
	"fmt"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
)

// Peek implements policy.Peeker. It reads the store and changes nothing. It
// does not know how many new senders a network has made recently. So for a
// network that makes too many, it returns the verdict on the first of them.
func (g *Greylist) Peek(ctx context.Context, r *policy.Request, prior policy.Signals) (policy.Verdict, error) {
	return g.check(ctx, r, prior, g.peek)
}

func (g *Greylist) peek(ctx context.Context, r *policy.Request, s *sight) (policy.Verdict, error) {
	v := policy.Verdict{Kind: policy.Pass, Detail: s.detail()}
	known, err := g.peekStore(ctx, s.key)
	if err != nil {
		return policy.Verdict{Reason: record.GreylistUnavailable, Detail: v.Detail}, err
	}
	limits := g.Limits
	if g.Flood.Full(r.Received) {
		known.Refused = greylist.DaemonFlooded
	}
	o := greylist.Decide(known, r.Received, limits)
	v.Reason = GreylistReason(o.Why)
	switch {
	case !o.Pass():
		v.Kind, v.Text = policy.Defer, g.text(o, s.key)
		v.Detail += waitedWord(o.Waited) + leftWord(o.Wait)
	case o.Why == greylist.Waited:
		v.Detail += waitedWord(o.Waited)
		if g.Header {
			v.Header = g.headerOf(r, o)
		}
	}
	return v, nil
}

// peekStore returns the record that a request would get. A store with an open
// breaker is not asked.
func (g *Greylist) peekStore(ctx context.Context, key greylist.Key) (greylist.Record, error) {
	if guarded, ok := g.Store.(interface{ Down() error }); ok {
		if err := guarded.Down(); err != nil {
			return greylist.Record{}, fmt.Errorf("%w: %w", greylist.ErrUnavailable, err)
		}
	}
	return g.Store.Peek(ctx, key)
}
