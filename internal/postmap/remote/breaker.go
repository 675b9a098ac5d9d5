package remote

import (
	"sync"
	"time"
)

const (
	// maxFailures in a row make a server count as down.
	maxFailures = 3
	// A server that is down is tried again after firstPause, then after twice
	// that, and so on up to lastPause.
	firstPause = 250 * time.Millisecond
	lastPause  = 5 * time.Second
)

// breaker keeps a dead server from costing every request its time-out.
type breaker struct {
	mu       sync.Mutex
	failures int
	down     bool
	since    time.Time
	until    time.Time // no question before it, while down
	pause    time.Duration
	probing  bool
	err      error
}

// allow tells whether a question may be asked, and whether it is the one that
// tries a server that is down; its report must say so.
func (b *breaker) allow(now time.Time) (allowed, probe bool, down error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.down:
		return true, false, nil
	case b.probing || now.Before(b.until):
		return false, false, b.err
	}
	b.probing = true
	return true, true, nil
}

// abandon ends a question that was not asked.
func (b *breaker) abandon(probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
}

// report takes the outcome of a question.
func (b *breaker) report(now time.Time, probe bool, err error) (change Change, changed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	if err == nil || IsKeyError(err) {
		b.failures = 0
		if !b.down {
			return Change{}, false
		}
		b.down, b.err = false, nil
		return Change{Up: true, Down: now.Sub(b.since)}, true
	}
	b.err = err
	if b.down {
		if probe {
			b.pause = min(2*b.pause, lastPause)
			b.until = now.Add(b.pause)
		}
		return Change{}, false
	}
	if b.failures++; b.failures < maxFailures {
		return Change{}, false
	}
	b.down, b.since, b.pause = true, now, firstPause
	b.until = now.Add(b.pause)
	return Change{Err: err}, true
}

func (b *breaker) isDown() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.down
}
