package limit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/internal/breaker"
)

const (
	// guardPause is the time between two attempts to reach a store that is down.
	guardPause = time.Second
	// watchEvery is the time between two probes of a store that answers.
	watchEvery = 5 * time.Second
)

// Guard is a circuit breaker around a store: while the store is down, requests fail at
// once and need not wait for a time-out.
type Guard struct {
	Store
	// Took is called with the duration and the error of each request to the store. It
	// must be set before the first request, and may be nil.
	Took func(time.Duration, error)

	breaker *breaker.Breaker
}

// NewGuard guards a store. now is the clock; nil means time.Now. changed is called once for
// each change: with an error when the store fails, and with nil when it answers again.
func NewGuard(store Store, now func() time.Time, changed func(error)) *Guard {
	return &Guard{Store: store, breaker: breaker.New(breaker.Config{
		First: guardPause, Now: now,
		Classify: func(err error) breaker.Class {
			switch {
			case errors.Is(err, errRead):
				return breaker.Ignored
			case errors.Is(err, ErrDenied):
				return breaker.Hopeless
			}
			return breaker.Classify(err)
		},
		Changed: func(c breaker.Change) { changed(c.Err) },
	})}
}

// Take implements Store.
func (g *Guard) Take(ctx context.Context, op *Op) (Answer, error) {
	return ask(g, func() (Answer, error) { return g.Store.Take(ctx, op) })
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
	return read(g, func() ([]Block, error) { return g.Store.Blocks(ctx) })
}

// Counters implements Store.
func (g *Guard) Counters(ctx context.Context, prefix string, now time.Time, yield func(Counter) error) error {
	_, err := read(g, func() (struct{}, error) { return struct{}{}, g.Store.Counters(ctx, prefix, now, yield) })
	return err
}

// Reset implements Store.
func (g *Guard) Reset(ctx context.Context, ids []string) (int, error) {
	return ask(g, func() (int, error) { return g.Store.Reset(ctx, ids) })
}

// SetBlock implements Store. The error of a store that still counts does not open the
// breaker.
func (g *Guard) SetBlock(ctx context.Context, b Block, lift bool) (counts error) {
	err := g.do(func() error {
		err := g.Store.SetBlock(ctx, b, lift)
		if errors.Is(err, ErrFull) || errors.Is(err, ErrUnsaved) {
			counts, err = err, nil
		}
		return err
	})
	return errors.Join(err, counts)
}

func (g *Guard) do(request func() error) error {
	_, err := ask(g, func() (struct{}, error) { return struct{}{}, request() })
	return err
}

// ask sends a request to the store, unless the store is down.
func ask[T any](g *Guard, request func() (T, error)) (T, error) {
	answer, err := breaker.DoTimed(g.breaker, g.Took, request)
	return answer, unavailable(err)
}

// errRead marks a read that was answered.
var errRead = errors.New("read")

// read is ask for requests that only read. If they are answered, this does not mean that
// the store is up, because a server that is full answers them, and counts nothing. So such
// a server is asked although it counts as down.
func read[T any](g *Guard, request func() (T, error)) (T, error) {
	took := g.Took
	if took != nil {
		took = func(d time.Duration, err error) { g.Took(d, unmarked(err)) }
	}
	answer, err := breaker.DoTimed(g.breaker, took, func() (T, error) {
		answer, err := request()
		if err == nil {
			err = errRead
		}
		return answer, err
	})
	if errors.Is(err, breaker.ErrDown) && errors.Is(err, ErrFull) {
		return request()
	}
	return answer, unavailable(unmarked(err))
}

func unmarked(err error) error {
	if errors.Is(err, errRead) {
		return nil
	}
	return err
}

func unavailable(err error) error {
	if errors.Is(err, breaker.ErrDown) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// Down returns why the store counts as unavailable, or nil if it is available.
func (g *Guard) Down() error { return g.breaker.Down() }

// Watch probes the store until ctx ends, if the store has a probe, so that a failure is
// noticed before mail arrives.
func (g *Guard) Watch(ctx context.Context) {
	if s, ok := g.Store.(interface{ Probe(context.Context) error }); ok {
		g.breaker.Watch(ctx, watchEvery, s.Probe)
	}
}
