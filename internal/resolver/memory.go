package resolver

import (
	"context"
	"errors"
	"sync/atomic"
)

// ErrNotInMemory is the cause of the error when the answer is not in the cache.
var ErrNotInMemory = errors.New("the answer is not in memory")

// Memory answers at once from the cache of a [Resolver], with the same methods. It
// sends nothing. It saves callers a goroutine for each message whose answers are
// all in the cache: they work with the memory first. If an answer was missing, they
// do the work again with the resolver.
type Memory struct {
	lookups
	resolver *Resolver
	missed   atomic.Bool
}

// Remembering is a resolver that has a Memory, such as *Resolver.
type Remembering interface{ Memory() *Memory }

// Memory returns a new view of the cache of r.
func (r *Resolver) Memory() *Memory {
	m := &Memory{resolver: r}
	m.lookups = lookups{m}
	return m
}

// Missed reports whether an answer was not in memory. The caller must then discard
// its results.
func (m *Memory) Missed() bool { return m.missed.Load() }

// lookup answers from the cache alone.
func (m *Memory) lookup(_ context.Context, q question) (outcome, error) {
	r := m.resolver
	s := r.shard(q)
	now := r.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, ok := s.get(q, now)
	if !ok {
		m.missed.Store(true)
		return outcome{}, ErrNotInMemory
	}
	out := *kept
	out.answer.TTL = out.expires.Sub(now)
	return out, nil
}
