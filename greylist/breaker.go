package greylist

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// breakerFailures is how many failures in a row open a Breaker.
	breakerFailures = 3
	// breakerPause is the time between two attempts while it is open.
	breakerPause = time.Second
	// breakerTries is how many operations may be under way while it is open.
	breakerTries = 1
)

// Breaker keeps a store that is down from costing every request its time-out:
// after three failures in a row it answers ErrUnavailable at once and lets one
// request a second try, until one succeeds.
type Breaker struct {
	store    Store
	now      func() time.Time
	onChange func(down bool, err error)

	mu       sync.Mutex
	failures int
	last     error
	open     bool
	nextTry  time.Time
	trying   int
}

// NewBreaker guards store. now is the clock of the pauses. onChange is called
// once for each change of state, by the request that brought it about.
func NewBreaker(store Store, now func() time.Time, onChange func(down bool, err error)) *Breaker {
	return &Breaker{store: store, now: now, onChange: onChange}
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

// Down tells why the store is taken for unavailable, nil if it is not.
func (b *Breaker) Down() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return nil
	}
	return b.last
}

func guard[T any](b *Breaker, ask func() (T, error)) (T, error) {
	if err := b.enter(); err != nil {
		var none T
		return none, err
	}
	var got T
	var err error
	returned := false
	defer func() {
		if !returned { // a panic must not leave the try counted
			b.leave(errors.New("panic"))
		}
	}()
	got, err = ask()
	returned = true
	b.leave(err)
	return got, err
}

func (b *Breaker) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return nil
	}
	if b.trying >= breakerTries || b.now().Before(b.nextTry) {
		return fmt.Errorf("%w: %w", ErrUnavailable, b.last)
	}
	b.trying++
	b.nextTry = b.now().Add(breakerPause)
	return nil
}

// leave counts the outcome. A caller that went away says nothing about the
// store.
func (b *Breaker) leave(err error) {
	b.mu.Lock()
	b.trying = max(b.trying-1, 0)
	was := b.open
	switch {
	case err == nil || errors.Is(err, ErrFull):
		b.failures, b.open = 0, false
	case errors.Is(err, context.Canceled):
	default:
		b.failures, b.last = b.failures+1, err
		if b.failures >= breakerFailures && !b.open {
			b.open, b.nextTry = true, b.now().Add(breakerPause)
		}
	}
	is, last := b.open, b.last
	b.mu.Unlock()
	if was != is {
		b.onChange(is, last)
	}
}
