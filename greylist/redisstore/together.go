package redisstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// maxFlights is how many round trips of sightings are under way at a time.
	maxFlights = 2
	// maxTogether bounds the sightings of one round trip.
	maxTogether = 128
)

// together sends what is asked at the same time in one round trip: each costs
// the server and us a few system calls, which are most of a sighting's price.
// Nobody waits for company: a lone sighting leaves at once, and what comes
// while maxFlights are under way leaves with the next.
type together struct {
	send func([]*sighting)

	mu      sync.Mutex
	waiting []*sighting
	flights int
	closed  bool
	done    sync.WaitGroup
}

// sighting is one call of the script.
type sighting struct {
	ctx   context.Context // of who waits for it
	args  []any           // of EVALSHA
	value any
	err   error
	ready chan struct{}
}

// ask returns when the sighting has its answer, when its context ends, or after
// opTimeout. How many wait is bounded by those who ask: each waits for one.
func (t *together) ask(ctx context.Context, s *sighting) (any, error) {
	s.ctx, s.ready = ctx, make(chan struct{})
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, redis.ErrClosed
	}
	t.waiting = append(t.waiting, s)
	if t.flights < maxFlights {
		t.flights++
		t.done.Go(t.fly)
	}
	t.mu.Unlock()
	timeout := time.NewTimer(opTimeout) // much cheaper than a context
	defer timeout.Stop()
	select {
	case <-s.ready:
		return s.value, s.err
	case <-timeout.C:
		return nil, fmt.Errorf("redis: no answer within %s: %w", opTimeout, context.DeadlineExceeded)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// fly sends until nobody waits.
func (t *together) fly() {
	for {
		t.mu.Lock()
		n := min(len(t.waiting), maxTogether)
		if n == 0 {
			t.flights--
			t.mu.Unlock()
			return
		}
		batch := make([]*sighting, 0, n)
		for _, s := range t.waiting[:n] {
			if s.ctx.Err() == nil { // else nobody waits for it
				batch = append(batch, s)
			}
		}
		t.waiting = append(t.waiting[:0], t.waiting[n:]...)
		t.mu.Unlock()
		if len(batch) > 0 {
			t.send(batch)
		}
		for _, s := range batch {
			close(s.ready)
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
