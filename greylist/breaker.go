package greylist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/internal/breaker"
)

const (
	// breakerPause is the time between two attempts at a store that is down.
	breakerPause = time.Second
	// watchInterval is the time between two probes of a store that answers.
	watchInterval = 5 * time.Second
)

// Breaker saves requests from waiting for a store that is down. After three
// failures in a row it returns ErrUnavailable at once, and lets one request a second
// try, until one succeeds. A store that cannot record anything new is not down: it
// still answers for senders that have passed before.
type Breaker struct {
	// Took is called with the duration and the error of each request to the store.
	// It is set before the first request, and may be nil.
	Took func(time.Duration, error)

	store    Store
	breaker  *breaker.Breaker
	onChange func(Health, error)

	full atomic.Bool
	down atomic.Bool

	mu       sync.Mutex // held while onChange is called
	reported Health
}

// Health is the state of a store.
type Health uint8

// The states.
const (
	Healthy Health = iota
	Full           // cannot record anything new
	Down
)

// NewBreaker returns a breaker for store. now is the clock for the pauses. onChange
// is called once for each change of state, by the request that caused it. Its error
// is the cause when the store is not healthy.
func NewBreaker(store Store, now func() time.Time, onChange func(Health, error)) *Breaker {
	b := &Breaker{store: store, onChange: onChange}
	b.breaker = breaker.New(breaker.Config{
		First:    breakerPause,
		Classify: classify,
		Changed: func(c breaker.Change) {
			b.full.Store(errors.Is(c.Answer, ErrFull)) // what was known before is not true any more
			b.down.Store(!c.Up)
			b.report(cmp.Or(c.Err, c.Answer))
		},
		Now: now,
	})
	return b
}

// Health returns the current state of the store.
func (b *Breaker) Health() Health {
	switch {
	case b.down.Load():
		return Down
	case b.full.Load():
		return Full
	}
	return Healthy
}

func (b *Breaker) report(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.Health(); h != b.reported {
		b.reported = h
		b.onChange(h, err)
	}
}

// classify returns what an error means for the breaker. A full store has answered,
// so it is not down.
func classify(err error) breaker.Class {
	switch {
	case errors.Is(err, ErrFull):
		return breaker.Answered
	case errors.Is(err, ErrDenied):
		return breaker.Hopeless
	}
	return breaker.Classify(err)
}

// Seen implements Store.
func (b *Breaker) Seen(ctx context.Context, key Key, now time.Time, limits Limits) (Record, error) {
	r, err := guard(b, func() (Record, error) { return b.store.Seen(ctx, key, now, limits) })
	switch {
	case errors.Is(err, ErrFull):
		b.setFull(true, err)
	case err == nil && b.full.Load() && r.writes(now, limits):
		b.setFull(false, nil)
	}
	return r, err
}

// writes reports whether the store must have written something new to answer this
// sighting.
func (r Record) writes(now time.Time, l Limits) bool {
	why := Decide(r, now, l).Why
	return why == New || why == Early || why == Waited
}

func (b *Breaker) setFull(full bool, err error) {
	if b.full.Swap(full) != full {
		b.report(err)
	}
}

// Watch probes the store until ctx ends, so that a failure is noticed before mail
// comes, and that a store which was full records again. It does nothing if the store has
// no probe.
func (b *Breaker) Watch(ctx context.Context) {
	if s, ok := b.store.(interface{ Probe(context.Context) error }); ok {
		b.breaker.Watch(ctx, watchInterval, func(ctx context.Context) error {
			err := s.Probe(ctx)
			if full := errors.Is(err, ErrFull); full || err == nil {
				b.setFull(full, err)
			}
			return err
		})
	}
}

// Credit implements Store.
func (b *Breaker) Credit(ctx context.Context, client string, now time.Time) error {
	_, err := guard(b, func() (struct{}, error) { return struct{}{}, b.store.Credit(ctx, client, now) })
	return err
}

// Peek implements Store. It asks the store even while it is down, because a person
// waits for the answer.
func (b *Breaker) Peek(ctx context.Context, key Key) (Record, error) { return b.store.Peek(ctx, key) }

// Down returns why the store counts as down, or nil if it does not.
func (b *Breaker) Down() error { return b.breaker.Down() }

func guard[T any](b *Breaker, ask func() (T, error)) (T, error) {
	answer, err := breaker.DoTimed(b.breaker, b.Took, ask)
	if errors.Is(err, breaker.ErrDown) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return answer, err
}
