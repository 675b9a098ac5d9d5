package greylist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/internal/breaker"
)

// breakerPause is the time between two attempts at a store that is down.
const breakerPause = time.Second

// Breaker keeps a store that is down from costing every request its time-out:
// after three failures in a row it answers ErrUnavailable at once and lets one
// request a second try, until one succeeds.
type Breaker struct {
	store   Store
	breaker *breaker.Breaker
}

// NewBreaker guards store. now is the clock of the pauses. onChange is called
// once for each change of state, by the request that brought it about.
func NewBreaker(store Store, now func() time.Time, onChange func(down bool, err error)) *Breaker {
	return &Breaker{store, breaker.New(breaker.Config{
		First:    breakerPause,
		Classify: classify,
		Changed:  func(c breaker.Change) { onChange(!c.Up, c.Err) },
		Now:      now,
	})}
}

// classify says what an outcome means for the store. One that is full has
// answered.
func classify(err error) breaker.Class {
	if errors.Is(err, ErrFull) {
		return breaker.Answered
	}
	return breaker.Classify(err)
}

// Seen implements Store.
func (b *Breaker) Seen(ctx context.Context, key Key, now time.Time, limits Limits) (Record, error) {
	return guard(b, func() (Record, error) { return b.store.Seen(ctx, key, now, limits) })
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
	answer, err := breaker.Do(b.breaker, ask)
	if errors.Is(err, breaker.ErrDown) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return answer, err
}
