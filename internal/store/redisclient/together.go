package redisclient

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// maxFlights is how many round trips are under way at a time.
	maxFlights = 3
	// company is how many calls go together while another round trip is
	// under way.
	company = 4
	// maxTogether bounds the calls of one round trip.
	maxTogether = 128
)

// together sends what is asked at the same time in one round trip: each costs
// the server and us a few system calls and a cold start, which is most of a
// call's price. A lone call leaves at once. While a round trip is under
// way, the next leaves as soon as company of them are there, or when that one is
// back; while maxFlights are, when one is back.
type together struct {
	send func([]*Call)

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
	gone   atomic.Bool // no one waits for it any more
}

func newCall() *Call {
	s := &Call{ready: make(chan struct{}, 1), timer: time.NewTimer(OpTimeout)}
	s.timer.Stop()
	return s
}

// ask returns when the call has its answer, when its context ends, or after
// OpTimeout. How many wait is bounded by those who ask: each waits for one.
func (t *together) ask(ctx context.Context, s *Call) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := t.add(s); err != nil {
		return nil, err
	}
	// A timer is much cheaper than a context, and a deadline than a channel
	// that reports that it has come.
	wait, ended := OpTimeout, (<-chan struct{})(nil)
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

func (t *together) add(s *Call) error {
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

// leaves reports whether what waits goes, while others are under way.
func (t *together) leaves(others int) bool {
	return len(t.waiting) >= company || len(t.waiting) > 0 && others == 0
}

// fly sends until what waits is another's to send.
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

// close waits for what is under way.
func (t *together) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.done.Wait()
}
