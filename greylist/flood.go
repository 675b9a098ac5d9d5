package greylist

import (
	"sync"
	"time"
)

// Flood bounds the new triplets of one daemon. It is a bucket that holds the cap
// and is refilled at the rate of one cap in each FloodWindow. So a flood slows
// new senders down, but never locks all of them out for the rest of the hour.
type Flood struct {
	mu    sync.Mutex
	level float64 // tokens
	cap   float64
	at    time.Time
}

// NewFlood returns a full bucket; a limit of 0 means no bound.
func NewFlood(limit int) *Flood { return &Flood{level: float64(limit), cap: float64(limit)} }

// SetCap changes the bound.
func (f *Flood) SetCap(limit int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cap == 0 {
		f.level = float64(limit)
	}
	f.cap = float64(limit)
	f.level = min(f.level, f.cap)
}

// Full reports whether no new triplet may be recorded now.
func (f *Flood) Full(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refill(now)
	return f.cap > 0 && f.level < 1
}

// Made counts a new triplet.
func (f *Flood) Made() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.level = max(f.level-1, 0)
}

func (f *Flood) refill(now time.Time) {
	if passed := now.Sub(f.at); !f.at.IsZero() && passed > 0 {
		f.level = min(f.cap, f.level+f.cap*float64(passed)/float64(FloodWindow))
	}
	f.at = now
}
