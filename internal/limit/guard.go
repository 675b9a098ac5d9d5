package limit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/internal/breaker"
)

const (
	// guardPause is the time between two tries at a store that is down.
	guardPause = time.Second
	// watchEvery is the time between two probes of a store that answers.
	watchEvery = 5 * time.Second
)

// Guard keeps a store that is down from costing every request its time-out.
type Guard struct {
	Store
	breaker *breaker.Breaker
}

// NewGuard guards a store. changed hears once of each change; the error is the reason
// of trouble, nil when the store answers again.
func NewGuard(store Store, now func() time.Time, changed func(error)) *Guard {
	return &Guard{Store: store, breaker: breaker.New(breaker.Config{
		First: guardPause, Now: now,
		Classify: func(err error) breaker.Class {
			if errors.Is(err, ErrDenied) {
				return breaker.Hopeless
			}
			return breaker.Classify(err)
		},
		Changed: func(c breaker.Change) { changed(c.Err) },
	})}
}

// Take implements Store.
func (g *Guard) Take(ctx context.Context, op *Op) (Answer, error) {
	a, err := breaker.Do(g.breaker, func() (Answer, error) { return g.Store.Take(ctx, op) })
	return a, unavailable(err)
}

// Undo implements Store.
func (g *Guard) Undo(ctx context.Context, op *Op) error {
	return g.do(func() error { return g.Store.Undo(ctx, op) })
}

// Add implements Store.
func (g *Guard) Add(ctx context.Context, op *Op) error {
	return g.do(func() error { return g.Store.Add(ctx, op) })
}

// Blocks implements Store.
func (g *Guard) Blocks(ctx context.Context) ([]Block, error) {
	all, err := breaker.Do(g.breaker, func() ([]Block, error) { return g.Store.Blocks(ctx) })
	return all, unavailable(err)
}

func (g *Guard) do(ask func() error) error {
	_, err := breaker.Do(g.breaker, func() (struct{}, error) { return struct{}{}, ask() })
	return unavailable(err)
}

func unavailable(err error) error {
	if errors.Is(err, breaker.ErrDown) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// Down returns why the store counts as unavailable, nil if it does not.
func (g *Guard) Down() error { return g.breaker.Down() }

// Watch probes the store until ctx ends, if it can be, so that trouble is noticed
// before mail comes.
func (g *Guard) Watch(ctx context.Context) {
	if s, ok := g.Store.(interface{ Probe(context.Context) error }); ok {
		g.breaker.Watch(ctx, watchEvery, s.Probe)
	}
}
