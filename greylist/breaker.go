package greylist

import (
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

// Breaker keeps a store that is down from costing every request its time-out:
// after three failures in a row it answers ErrUnavailable at once and lets one
// request a second try, until one succeeds. A store that takes nothing new is not
// down: it answers for who has passed before.
type Breaker struct {
	// Took takes the time of each request to the store and its error. It is set
	// before the first request; nil for no one.
	Took func(time.Duration, error)

	store    Store
	breaker  *breaker.Breaker
	now      func() time.Time
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
	Full           // takes nothing new
	Down
)

// NewBreaker guards store. now is the clock of the pauses. onChange is called
// once for each change of state, by the request that brought it about; the error
// is the reason of trouble.
func NewBreaker(store Store, now func() time.Time, onChange func(Health, error)) *Breaker {
	b := &Breaker{store: store, now: now, onChange: onChange}
	b.breaker = breaker.New(breaker.Config{
		First:    breakerPause,
		Classify: classify,
		Changed: func(c breaker.Change) {
			b.full.Store(false) // not known any more
			b.down.Store(!c.Up)
			b.report(c.Err)
		},
		Now: now,
	})
	return b
}

// Health is what the store can do now.
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

// classify says what an outcome means for the store. One that is full has
// answered.
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

// writes reports whether a sighting could be answered only because the store has
// taken something new.
func (r Record) writes(now time.Time, l Limits) bool {
	why := Decide(r, now, l).Why
	return why == New || why == Early || why == Waited
}

func (b *Breaker) setFull(full bool, err error) {
	if b.full.Swap(full) != full {
		b.report(err)
	}
}

// Watch probes the store until ctx ends, if it can be, so that trouble is noticed
// before mail comes.
func (b *Breaker) Watch(ctx context.Context) {
	if s, ok := b.store.(interface{ Probe(context.Context) error }); ok {
		b.breaker.Watch(ctx, watchInterval, s.Probe)
	}
}

// Credit implements Store.
func (b *Breaker) Credit(ctx context.Context, client string, now time.Time) error {
	_, err := guard(b, func() (struct{}, error) { return struct{}{}, b.store.Credit(ctx, client, now) })
	return err
}

// Peek implements Store. It asks even while the store is down: a person waits
// for the answer.
func (b *Breaker) Peek(ctx context.Context, key Key) (Record, error) { return b.store.Peek(ctx, key) }

// Down returns why the store counts as unavailable, nil if it does not.
func (b *Breaker) Down() error { return b.breaker.Down() }

func guard[T any](b *Breaker, ask func() (T, error)) (T, error) {
	answer, err := breaker.Do(b.breaker, func() (T, error) {
		if b.Took == nil {
			return ask()
		}
		start := b.now()
		answer, err := ask()
		b.Took(b.now().Sub(start), err)
		return answer, err
	})
	if errors.Is(err, breaker.ErrDown) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return answer, err
}
