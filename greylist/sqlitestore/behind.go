package sqlitestore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/greylist/memstore"
)

const (
	// promise is how much of the past a crash may take.
	promise = time.Second
	// slackLag is the lag at which requests begin to give way to the writer.
	slackLag = promise / 2
	// giveWay is how long each of them does. A disk that stands still costs no
	// more than this.
	giveWay = 20 * time.Millisecond
)

// behind follows memory with what it hands to store, and keeps count of how far
// behind it is. It turns round the shards of memory: what had changed when a
// turn began is stored when it ends.
type behind struct {
	memory *memstore.Store
	store  func([]memstore.Row) error
	// covered is the time before which all sightings have been stored, in
	// nanoseconds since 1970.
	covered atomic.Int64
	// failing says that store fails, so that waiting for it is of no use.
	failing atomic.Bool
}

func newBehind(memory *memstore.Store, store func([]memstore.Row) error) *behind {
	b := &behind{memory: memory, store: store}
	b.covered.Store(time.Now().UnixNano())
	return b
}

// turn stores all that has changed.
func (b *behind) turn() error {
	began := time.Now()
	for from := 0; ; {
		batch, next := b.memory.Take(from, batchRows)
		if len(batch.Rows) > 0 {
			if err := b.store(batch.Rows); err != nil {
				b.memory.Failed(batch)
				return err
			}
			b.memory.Written(batch)
		}
		if from = next; from == 0 {
			b.covered.Store(began.UnixNano())
			return nil
		}
	}
}

// lag is how old the oldest sighting may be that is not stored yet.
func (b *behind) lag() time.Duration { return time.Duration(time.Now().UnixNano() - b.covered.Load()) }

// late tells that the writer needs the machine more than requests do.
func (b *behind) late() bool { return b.lag() > slackLag && !b.failing.Load() }

// wait holds a request up for a moment when store lags behind, so that requests
// that come faster than it can store do not break the promise.
func (b *behind) wait(ctx context.Context) {
	if !b.late() {
		return
	}
	pause := time.NewTimer(giveWay)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
}
