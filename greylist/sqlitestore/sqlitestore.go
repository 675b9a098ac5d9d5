// Package sqlitestore keeps a greylist in memory and writes it behind to a
// SQLite file, so that answers cost no disk access and a restart forgets
// nothing.
//
// Invariants:
//
//   - Memory is the authority. What changed is written in one transaction
//     every 200 ms: a crash loses at most the sightings of the last second, an
//     orderly Close none. Requests that come faster than the file takes them
//     are slowed down.
//   - Open reads the file into memory, the newest first, until memory is full.
//     What memory has no room for is read when it is asked for. Memory knows the
//     row of each, so that nobody is looked for in vain, and the file needs no
//     index: keeping one would cost the writer five times what its rows do.
//   - One process owns the file.
//   - A file that cannot be read is renamed, never deleted. A file that cannot
//     be written costs no answer until memory is full of what waits for it.
//   - Expired entries are removed in small steps between the writes.
package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
)

const (
	flushInterval = 200 * time.Millisecond
	// failPause is the time between two tries to write while they fail.
	failPause = time.Second
	// batchRows bounds one transaction, not counting the rest of a shard.
	batchRows = 10_000
	// purgeRows is how many rows are looked at between two writes.
	purgeRows = 500
	// purgePause is the time from the start of one purge to the next.
	purgePause = 10 * time.Minute
	// DefaultMaxEntries bounds the entries in memory, about 370 MB when full of
	// IDs of 75 octets. A triplet has one, or two when SPF authorised its domain.
	DefaultMaxEntries = 1 << 21
	// openTimeout bounds the opening of a file, its check and its reading
	// included.
	openTimeout = 5 * time.Minute
)

// EventKind says what an Event is about.
type EventKind uint8

// The events; the first two are trouble.
const (
	SetAside     EventKind = iota + 1 // a corrupt file was renamed to Aside, a new one is in use
	WriteFailing                      // reported once, until WritingAgain
	WritingAgain
)

// Event is something for the log.
type Event struct {
	Kind  EventKind
	Path  string
	Aside string
	Err   error
}

// Options describe a store.
type Options struct {
	Path       string
	MaxEntries int              // in memory; 0: DefaultMaxEntries
	Report     func(Event)      // hears of events, from the store's goroutines and from Open
	Now        func() time.Time // clock of purging and of names; nil: time.Now
}

// Store implements greylist.Store and greylist.Browser.
type Store struct {
	memory  *memstore.Store
	behind  *behind
	options Options
	limits  atomic.Pointer[greylist.Limits] // of purging; nil: nothing is purged

	mu   sync.RWMutex // of file: held for reading by those who use it
	file *file

	syncs   chan chan error // asks the writer to write now
	corrupt chan struct{}   // a reader found the file corrupt
	stop    chan struct{}
	life    func() context.Context // ends with Close
	cancel  context.CancelFunc
	done    sync.WaitGroup

	// What follows belongs to the writer.
	retryAt time.Time
	purge   purge
}

// Open opens or makes the file. A corrupt one is set aside and reported.
func Open(o Options) (*Store, error) {
	if o.Report == nil {
		o.Report = func(Event) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	s := &Store{
		options: o,
		syncs:   make(chan chan error),
		corrupt: make(chan struct{}, 1),
		stop:    make(chan struct{}),
	}
	if err := s.openOrSetAside(); err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.Background())
	s.life, s.cancel = func() context.Context { return life }, cancel
	s.behind = newBehind(s.memory, s.store)
	s.done.Go(s.write)
	return s, nil
}

func (s *Store) openOrSetAside() error {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	f, err := openFile(ctx, s.options.Path)
	if err == nil {
		if err = s.fill(ctx, f); err == nil {
			s.file = f
			return nil
		}
		err = errors.Join(explain(s.options.Path, err), f.close())
	}
	if !isCorrupt(err) {
		return err
	}
	if f, err = s.replace(ctx, err); err != nil {
		return err
	}
	s.file = f
	return s.fill(ctx, f)
}

// replace sets a corrupt file aside and makes a new one.
func (s *Store) replace(ctx context.Context, cause error) (*file, error) {
	aside, err := setAside(s.options.Path, s.options.Now())
	if err != nil {
		return nil, fmt.Errorf("greylist store: set a corrupt file aside: %w", err)
	}
	s.options.Report(Event{Kind: SetAside, Path: s.options.Path, Aside: aside, Err: cause})
	return openFile(ctx, s.options.Path)
}

// SetLimits says what counts as expired from now on.
func (s *Store) SetLimits(l greylist.Limits) { s.limits.Store(&l) }

// Seen implements greylist.Store.
func (s *Store) Seen(ctx context.Context, key greylist.Key, now time.Time, limits greylist.Limits) (greylist.Record, error) {
	s.behind.wait(ctx)
	return s.memory.Seen(ctx, key, now, limits)
}

// Credit implements greylist.Store.
func (s *Store) Credit(ctx context.Context, client string, now time.Time) error {
	return s.memory.Credit(ctx, client, now)
}

// Peek implements greylist.Store.
func (s *Store) Peek(ctx context.Context, key greylist.Key) (greylist.Record, error) {
	return s.memory.Peek(ctx, key)
}

// Put implements greylist.Browser.
func (s *Store) Put(ctx context.Context, entries []greylist.Entry) error {
	return s.memory.Put(ctx, entries)
}

// Delete implements greylist.Browser.
func (s *Store) Delete(ctx context.Context, ids []greylist.ID) (int, error) {
	return s.memory.Delete(ctx, ids)
}

// Sync writes what has changed.
func (s *Store) Sync(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case s.syncs <- answer:
	case <-s.stop:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errClosed = errors.New("greylist store is closed")

// Close writes what has changed and closes the file. It must be called once,
// after the last use.
func (s *Store) Close() error {
	close(s.stop)
	s.cancel()
	s.done.Wait()
	err := s.flush()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(err, s.file.close())
}

// backing lets memory ask the file.
type backing struct{ *Store }

// Load implements memstore.Backing.
func (b backing) Load(ctx context.Context, rowID int64) (memstore.Row, bool, error) {
	row, ok, err := b.load(ctx, rowID)
	if err != nil && isCorrupt(err) {
		select {
		case b.corrupt <- struct{}{}:
		default:
		}
	}
	return row, ok, err
}

func (b backing) load(ctx context.Context, rowID int64) (found memstore.Row, ok bool, err error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	rows, err := b.file.lookup.QueryContext(ctx, rowID)
	if err != nil {
		return memstore.Row{}, false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if rows.Next() {
		found, err = scan(rows)
		return found, err == nil, err
	}
	return memstore.Row{}, false, rows.Err()
}
