package sqlitefile

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// promise is how much a crash may lose: the changes of this time.
	promise = time.Second
	// slackLag is the lag from which requests wait for the writer.
	slackLag = promise / 2
	// giveWay is how long each request waits at a lag of promise or more, even when the
	// disk hangs. Before, it waits for the part of it that the lag has of the way from
	// slackLag to promise: so a few connections are not held for longer than the file
	// needs.
	giveWay = 20 * time.Millisecond
	// longestRest is a few slices of the scheduler.
	longestRest = 10 * time.Millisecond
)

// Pace measures how far the file is behind memory, and slows down requests that come
// faster than the file can be written.
type Pace struct {
	start time.Time
	// covered is the time before which all changes have been stored, in nanoseconds
	// since start. A step of the machine's clock does not change it.
	covered atomic.Int64
	// failing means that writing fails, so that waiting for it does not help.
	failing atomic.Bool
}

// NewPace returns a pace without lag.
func NewPace() *Pace {
	return &Pace{start: time.Now()}
}

// stored records that all changes from before began have been stored.
func (p *Pace) stored(began time.Time) { p.covered.Store(int64(began.Sub(p.start))) }

// lag returns the greatest possible age of a change that is not stored yet.
func (p *Pace) lag() time.Duration { return time.Since(p.start) - time.Duration(p.covered.Load()) }

// Failing reports whether the file cannot be written now.
func (p *Pace) Failing() bool { return p.failing.Load() }

// Late reports whether the file is so far behind that requests must wait for the
// writer.
func (p *Pace) Late() bool { return p.lag() > slackLag && !p.failing.Load() }

// Wait delays a request if the file is behind, for longer the more it is behind.
func (p *Pace) Wait(ctx context.Context) {
	if !p.Late() {
		return
	}
	over := min(p.lag(), promise) - slackLag
	pause(ctx, giveWay*over/(promise-slackLag))
}

// Rest delays the writer for as long as it has worked, at most longestRest, unless the
// file is behind. Requests have the processor meanwhile: they wait longer beside a thread
// that computes without a rest.
func (p *Pace) Rest(ctx context.Context, worked time.Duration) {
	if !p.Late() {
		pause(ctx, min(worked, longestRest))
	}
}

func pause(ctx context.Context, d time.Duration) {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
	case <-ctx.Done():
	}
}
