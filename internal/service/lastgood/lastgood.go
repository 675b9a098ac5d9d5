// Package lastgood reads texts of entries: lookup tables and allow lists. While a
// changed text is not fit to be used, the entries of the last good text stay in
// use.
//
// A script may write such a text for minutes, line by line, or leave it empty
// because its export failed. Postfix goes on with the compiled table meanwhile. A
// daemon that read the unfinished text would refuse the mail of everyone whose
// line is not written yet. So a changed text is read again only when it is
// complete: it was renamed into place, or is older than a compiled table beside
// it, or was not written for a while. This while is longer for a writer that
// pauses. A text that would lose more than half of the entries, or all, is not
// used until it is changed again or an administrator accepts it.
//
// Invariants: the entries that stay in use are those that an earlier reload has
// put in force. The first text that a daemon reads is used as it is. Each text
// that is held back is logged once, and counted by the gauge
// postern_files_held_back until another text replaces it.
package lastgood

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/service"
)

// Bounds of the time for which a text must be unchanged before it counts as
// complete.
const (
	settle    = 2 * time.Second
	maxSettle = time.Minute
	// pauses is how many times the longest pause of its writer a text must be
	// unchanged.
	pauses = 3
)

// Reader describes how a text is read.
type Reader[T any] struct {
	Name  string // for the log, as "hash:/etc/postfix/owners"
	Open  func() (T, error)
	Files func(T) []string
	Len   func(T) int      // how many entries there are, negative when that is not known
	Close func(T) error    // may be nil
	Now   func() time.Time // nil means time.Now
}

// Keep reads a text. While the text has not changed, or is not fit to be used, it
// returns what the state in force has under the same key. The key is as for
// [service.Keep].
func Keep[T any](l *service.Life, r service.Runtime, key any, reader Reader[T]) (T, error) {
	guard, err := Of(l, r)
	if err != nil {
		var none T
		return none, err
	}
	if reader.Now == nil {
		reader.Now = time.Now
	}
	e, err := service.Keep(l, entryKey{key}, func() (service.Opened[*entry[T]], error) {
		e, err := open(guard, r.Log, entryKey{key}, reader)
		if err != nil {
			return service.Opened[*entry[T]]{}, err
		}
		return service.Opened[*entry[T]]{Value: e, Close: e.close, Unchanged: e.unchanged}, nil
	})
	if err != nil {
		var none T
		return none, err
	}
	if wait := e.wait(); wait > 0 {
		l.LookAgain(wait)
	}
	return e.value, nil
}

type entryKey struct{ key any }

// reading is what was read from a text.
type reading[T any] struct {
	value   T
	entries int             // negative when that is not known
	at      config.Snapshot // when it was read
}

func (r Reader[T]) read() (*reading[T], error) {
	began := r.Now()
	value, err := r.Open()
	if err != nil {
		return nil, err
	}
	return &reading[T]{value, r.Len(value), config.TakeSnapshot(began, r.Files(value)...)}, nil
}

func (r Reader[T]) close(read *reading[T]) error {
	if r.Close == nil {
		return nil
	}
	return r.Close(read.value)
}

// entry is one text that is in use.
type entry[T any] struct {
	guard  *Guard
	log    *zap.Logger
	key    entryKey
	reader Reader[T]
	*reading[T]

	mu      sync.Mutex
	waiting time.Duration   // until the text may be complete
	refused config.Snapshot // the text that would lose too much
	isHeld  bool            // refused is set
	seen    config.Snapshot // the latest state of the text
	changed time.Time       // when that was first seen
	pause   time.Duration   // the longest between two changes
}

// open reads a text, unless the previous entry has just read it to count its
// entries.
func open[T any](guard *Guard, log *zap.Logger, key entryKey, reader Reader[T]) (*entry[T], error) {
	read, ok := guard.takeCounted(key).(*reading[T])
	if !ok {
		var err error
		if read, err = reader.read(); err != nil {
			return nil, err
		}
	}
	guard.release(reader.Name)
	e := &entry[T]{guard: guard, log: log, key: key, reader: reader, reading: read, seen: read.at}
	e.waiting = read.at.Unsettled(reader.Now(), settle) // something may be writing it
	return e, nil
}

func (e *entry[T]) close() error { return e.reader.close(e.reading) }

func (e *entry[T]) wait() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.waiting
}

// unchanged reports whether the value is still to be used.
func (e *entry[T]) unchanged() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting = 0
	switch {
	case e.at.Unchanged():
		e.isHeld = false
		e.guard.release(e.reader.Name)
		return true
	case e.guard.take(e.reader.Name):
		return false
	case e.isHeld && e.refused.Unchanged():
		return true
	}
	if e.waiting = e.unsettled(); e.waiting > 0 {
		return true
	}
	return e.losesTooMuch()
}

// unsettled returns the shortest time until the text may be complete.
func (e *entry[T]) unsettled() time.Duration {
	now := e.reader.Now()
	latest := config.TakeSnapshot(now, e.reader.Files(e.value)...)
	if !latest.Same(e.seen) {
		if pause := now.Sub(e.changed); pause < maxSettle {
			e.pause = max(e.pause, pause)
		} else {
			e.pause = 0
		}
		e.seen, e.changed = latest, now
	}
	return e.at.Unsettled(now, min(max(settle, pauses*e.pause), maxSettle))
}

// losesTooMuch reads the text to count its entries, and reports whether too many
// are missing. If not, what was read is stored for open.
func (e *entry[T]) losesTooMuch() bool {
	if e.entries <= 0 {
		return false
	}
	next, err := e.reader.read()
	if err != nil {
		return false // the reload reports the error and changes nothing
	}
	if next.entries < 0 || 2*next.entries >= e.entries {
		e.guard.leaveCounted(e.key, next)
		return false
	}
	_ = e.reader.close(next) // it was read only to be counted
	e.refused, e.isHeld = next.at, true
	e.guard.hold(e.reader.Name)
	e.log.Error("a text would lose more than half of its entries, the last good one stays in use; correct it, or take it with: postern reload --force",
		zap.String("file", e.reader.Name), zap.Int("entries", e.entries), zap.Int("would_be", next.entries))
	return true
}
