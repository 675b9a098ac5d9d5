// Package breaker is a circuit breaker: while a backend is down, requests do not
// wait for its time-out.
//
// After some failures in a row a backend counts as down. Questions are then
// refused at once. After a pause, which grows with each failed try, one question
// is allowed, to find out whether the backend is up again.
//
// Invariants:
//   - every question that tries a backend which is down is ended exactly once,
//     by Done or Abandon; Do takes care of it;
//   - Changed is called once for each change between up and down, in order; it
//     may call Down;
//   - while the backend is down at most one question is running.
package breaker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Class is what the outcome of a question means for the backend.
type Class uint8

// The classes.
const (
	Failed   Class = iota // the backend is in trouble
	Answered              // the backend works, whatever the answer is
	Ignored               // says nothing about the backend
	Hopeless              // the backend itself refuses to serve: one such answer is enough
)

// ErrDown is wrapped by the error of every question that was refused.
var ErrDown = errors.New("is down and will be asked again soon")

// Config describes a breaker. The zero value is usable.
type Config struct {
	// Failures in a row make a backend count as down; 0 means 3.
	Failures int
	// First is the pause before a backend that is down is tried; 0 means a
	// second. It doubles with each failed try, up to Last. With a Last below
	// First it stays the same.
	First, Last time.Duration
	// Classify judges an outcome; nil means Classify of this package.
	Classify func(error) Class
	// Changed is called for each change; it may be nil.
	Changed func(Change)
	// Now is the clock for the pauses; nil means time.Now.
	Now func() time.Time
}

// Change is the argument of Config.Changed.
type Change struct {
	Up     bool
	Err    error         // the last failure, if down
	Answer error         // if up: the error with which the backend has answered, nil for none
	Down   time.Duration // how long the backend was down, if up
}

// Classify is the default of Config.Classify. No error means Answered, a
// cancelled context means Ignored, and every other error means Failed.
func Classify(err error) Class {
	switch {
	case err == nil:
		return Answered
	case errors.Is(err, context.Canceled):
		return Ignored
	}
	return Failed
}

// Breaker guards one backend. It is safe for concurrent use.
type Breaker struct {
	config  Config
	elapsed func(start time.Time) time.Duration

	// clean is true while the backend is up and the last question has not failed.
	// Nearly all questions read only this field.
	clean atomic.Bool

	// changing is held while Changed is called, so that changes are reported in
	// order. It is locked before mu.
	changing sync.Mutex

	mu       sync.Mutex
	failures int
	down     bool
	since    time.Time
	until    time.Time // no question before it, while down
	pause    time.Duration
	probing  bool
	err      error
}

// New returns a breaker for a backend that is up.
func New(c Config) *Breaker {
	if c.Failures <= 0 {
		c.Failures = 3
	}
	if c.First <= 0 {
		c.First = time.Second
	}
	c.Last = max(c.First, c.Last)
	if c.Classify == nil {
		c.Classify = Classify
	}
	if c.Changed == nil {
		c.Changed = func(Change) {}
	}
	b := &Breaker{elapsed: func(start time.Time) time.Duration { return c.Now().Sub(start) }}
	if c.Now == nil {
		c.Now, b.elapsed = time.Now, time.Since // which reads one clock, and time.Now reads two
	}
	b.config = c
	b.clean.Store(true)
	return b
}

// refusal returns the error of a question that is refused after a failure. A deadline was
// that of the failed question, so it is not wrapped: the refused one was in time.
func refusal(last error) error {
	if errors.Is(last, context.DeadlineExceeded) {
		return fmt.Errorf("%w; last error: %v", ErrDown, last)
	}
	return fmt.Errorf("%w; last error: %w", ErrDown, last)
}

// Question is a question that was allowed.
type Question struct {
	breaker *Breaker
	probe   bool
}

// Allow allows a question, or returns an error that wraps ErrDown and the last
// failure of the backend.
func (b *Breaker) Allow() (Question, error) {
	if b.clean.Load() {
		return Question{breaker: b}, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.down {
		return Question{breaker: b}, nil
	}
	if b.probing || b.config.Now().Before(b.until) {
		return Question{}, refusal(b.err)
	}
	b.probing = true
	return Question{b, true}, nil
}

// Down returns the last failure of a backend that is down, else nil.
func (b *Breaker) Down() error {
	if b.clean.Load() {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.down {
		return nil
	}
	return b.err
}

// Do calls ask if the question is allowed, and ends the question. A panic counts
// as a failure.
func Do[T any](b *Breaker, ask func() (T, error)) (answer T, err error) {
	q, err := b.Allow()
	if err != nil {
		return answer, err
	}
	outcome := errPanic
	defer func() { q.Done(outcome) }()
	answer, outcome = ask()
	return answer, outcome
}

// DoTimed is Do. If the question is allowed, took is called with its duration and its
// error; took may be nil.
func DoTimed[T any](b *Breaker, took func(time.Duration, error), ask func() (T, error)) (T, error) {
	if took == nil {
		return Do(b, ask)
	}
	return Do(b, func() (T, error) {
		start := b.config.Now()
		answer, err := ask()
		took(b.elapsed(start), err)
		return answer, err
	})
}

// Watch calls probe at once and then regularly, more often while it fails, until
// ctx ends. So Changed is called for a backend that is down even when there are
// no other questions.
func (b *Breaker) Watch(ctx context.Context, every time.Duration, probe func(context.Context) error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		_, err := Do(b, func() (struct{}, error) { return struct{}{}, probe(ctx) })
		if err == nil {
			timer.Reset(every)
		} else {
			timer.Reset(b.config.First)
		}
	}
}

var errPanic = errors.New("panic")

// Probe reports whether the question is a try of a backend that is down.
func (q Question) Probe() bool { return q.probe }

// Abandon ends a question that was not asked.
func (q Question) Abandon() { q.end(Ignored, nil) }

// Done ends a question with its outcome.
func (q Question) Done(err error) { q.end(q.breaker.config.Classify(err), err) }

func (q Question) end(class Class, err error) {
	b := q.breaker
	if !q.probe && (class == Ignored || class == Answered && b.clean.Load()) {
		return
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	if change, changed := b.note(q.probe, class, err); changed {
		b.config.Changed(change)
	}
}

func (b *Breaker) note(probe bool, class Class, err error) (change Change, changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = b.probing && !probe
	switch class {
	case Answered:
		change, changed = Change{Up: true, Answer: err, Down: b.config.Now().Sub(b.since)}, b.down
		b.failures, b.down, b.err = 0, false, nil
	case Failed, Hopeless:
		b.failures, b.err = b.failures+1, err
		if class == Hopeless {
			b.failures = max(b.failures, b.config.Failures)
		}
		b.wait(probe)
		if !b.down && b.failures >= b.config.Failures {
			b.down, b.since, b.pause = true, b.config.Now(), b.config.First
			b.until = b.since.Add(b.pause)
			change, changed = Change{Err: err}, true
		}
	}
	b.clean.Store(!b.down && b.failures == 0)
	return change, changed
}

// wait sets the time of the next try after a failure.
func (b *Breaker) wait(probe bool) {
	if b.down && probe {
		b.pause = min(2*b.pause, b.config.Last)
		b.until = b.config.Now().Add(b.pause)
	}
}
