package resolver

import (
	"context"
	"errors"
	"sync/atomic"
)

// ErrNotInMemory is the error of a question that would have to be sent.
var ErrNotInMemory = errors.New("the answer is not in memory")

// probe notes whether something was not in memory.
type probe struct{ missed atomic.Bool }

type probeKey struct{}

// FromMemory gives a context under which this resolver's lookups, those of
// Query included, answer from memory alone and at once. A question that would
// have to be sent gives ErrNotInMemory, and missed is true from then on: what was
// made of the answers must be thrown away. Callers spare themselves a goroutine
// for each message whose answers are all known.
func (r *Resolver) FromMemory(ctx context.Context) (memory context.Context, missed func() bool) {
	p := new(probe)
	return context.WithValue(ctx, probeKey{}, p), p.missed.Load
}

// onlyMemory tells whether a question may not be sent, and notes that it would
// have been.
func onlyMemory(ctx context.Context) bool {
	p, ok := ctx.Value(probeKey{}).(*probe)
	if ok {
		p.missed.Store(true)
	}
	return ok
}
