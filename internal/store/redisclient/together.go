package redisclient

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// maxFlights is how many round trips are under way at a time.
	maxFlights = 2
	// company is how many calls must wait before they are sent while another round
	// trip is under way.
	company = 6
	// maxTogether bounds the calls of one round trip.
	maxTogether = 128
)

// together sends calls of the same moment in one round trip. Most of the cost of a
// call is the round trip: system calls and a cold start, for the server and for us.
//
// A single call is sent at once. While a round trip is under way, calls wait until
// there are company of them, or until it ends. While maxFlights are under way, they
// wait until one ends.
type together struct {
	send    func([]*Call)
	timeout time.Duration // of a call; 0 means OpTimeout

	mu      sync.Mutex
	waiting []*Call
	flights int
	closed  bool
	done    sync.WaitGroup
}

// Call is one call of a script. Make it with Client.NewCall.
type Call struct {
	script *Script
	args   []any // of EVALSHA
	value  any
	err    error
	ready  chan struct{} // has room for one
	timer  *time.Timer
	gone   atomic.Bool // its caller does not wait any more
}

func newCall() *Call {
	s := &Call{ready: make(chan struct{}, 1), timer: time.NewTimer(OpTimeout)}
	s.timer.Stop()
	return s
}

// do returns when the call has its answer, when its context ends, or after
// the time for one. The queue is bounded by the number of callers, since each has one call.
func (t *together) do(ctx context.Context, s *Call) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := t.enqueue(s); err != nil {
		return nil, err
	}
	// A timer is much cheaper than a context, and reading a deadline is cheaper than
	// waiting on a channel.
	wait, ended := cmp.Or(t.timeout, OpTimeout), (<-chan struct{})(nil)
	deadline, timed := ctx.Deadline()
	if timed {
		wait = min(wait, time.Until(deadline))
	} else {
		ended = ctx.Done()
	}
	s.timer.Reset(wait)
	defer s.timer.Stop()
	select {
	case <-s.ready:
		return s.value, s.err
	case <-s.timer.C:
		s.gone.Store(true)
		return nil, fmt.Errorf("redis: no answer within %s: %w", wait.Round(time.Millisecond), context.DeadlineExceeded)
	case <-ended:
		s.gone.Store(true)
		return nil, context.Cause(ctx)
	}
}

func (t *together) enqueue(s *Call) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return redis.ErrClosed
	}
	t.waiting = append(t.waiting, s)
	if t.flights < maxFlights && t.leaves(t.flights) {
		t.flights++
		t.done.Go(t.fly)
	}
	return nil
}

// leaves reports whether the waiting calls are sent while others are under way.
func (t *together) leaves(others int) bool {
	return len(t.waiting) >= company || len(t.waiting) > 0 && others == 0
}

// fly sends the waiting calls, until those that are left must wait for others.
func (t *together) fly() {
	for {
		t.mu.Lock()
		if !t.leaves(t.flights - 1) {
			t.flights--
			t.mu.Unlock()
			return
		}
		n := min(len(t.waiting), maxTogether)
		batch := make([]*Call, 0, n)
		for _, s := range t.waiting[:n] {
			if !s.gone.Load() {
				batch = append(batch, s)
			}
		}
		t.waiting = append(t.waiting[:0], t.waiting[n:]...)
		t.mu.Unlock()
		if len(batch) > 0 {
			t.send(batch)
		}
		for _, s := range batch {
			s.ready <- struct{}{}
		}
	}
}

// close waits for the calls under way.
func (t *together) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.done.Wait()
}
