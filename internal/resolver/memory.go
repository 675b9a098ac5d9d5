package resolver

import (
	"context"
	"errors"
	"sync/atomic"
)

// ErrNotInMemory is the cause of the error for a question that would have to be
// sent.
var ErrNotInMemory = errors.New("the answer is not in memory")

// Memory answers from what a [Resolver] remembers, at once and with the same
// methods. It sends nothing. Callers spare themselves a goroutine for each
// message whose answers are all known: they work with the memory first, and do
// the work again with the resolver if something was missing.
type Memory struct {
	lookups
	resolver *Resolver
	missed   atomic.Bool
}

// Remembering is a resolver with a memory; *Resolver is one.
type Remembering interface{ Memory() *Memory }

// Memory returns a new view of what r remembers.
func (r *Resolver) Memory() *Memory {
	m := &Memory{resolver: r}
	m.lookups = lookups{m}
	return m
}

// Missed reports whether an answer was not in memory. What was made of the
// others must then be thrown away.
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
