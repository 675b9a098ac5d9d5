package sqlitefile

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	// promise is how much of the past a crash may take.
	promise = time.Second
	// slackLag is the lag at which requests begin to give way to the writer.
	slackLag = promise / 2
	// giveWay is how long each of them does. A disk that hangs costs no
	// more than this.
	giveWay = 20 * time.Millisecond
)

// Pace counts how far the file is behind memory, and slows requests down that
// come faster than the file takes them.
type Pace struct {
	// covered is the time before which all changes have been stored, in
	// nanoseconds since 1970.
	covered atomic.Int64
	// failing is whether storing fails, so that waiting for it is of no use.
	failing atomic.Bool
}

// NewPace returns a pace that is not behind.
func NewPace() *Pace {
	p := new(Pace)
	p.stored(time.Now())
	return p
}

// stored notes that all that had changed at a time has been stored.
func (p *Pace) stored(began time.Time) { p.covered.Store(began.UnixNano()) }

// lag is how old the oldest change may be that is not stored yet.
func (p *Pace) lag() time.Duration { return time.Duration(time.Now().UnixNano() - p.covered.Load()) }

// Failing reports whether the file cannot be written now.
func (p *Pace) Failing() bool { return p.failing.Load() }

// Late reports whether the writer needs the machine more than requests do.
func (p *Pace) Late() bool { return p.lag() > slackLag && !p.failing.Load() }

// Wait holds a request up for a moment when the file lags behind.
func (p *Pace) Wait(ctx context.Context) {
	if !p.Late() {
		return
	}
	pause := time.NewTimer(giveWay)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
}
