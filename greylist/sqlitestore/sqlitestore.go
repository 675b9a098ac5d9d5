// Package sqlitestore keeps a greylist in memory and writes it behind to a
// SQLite file, so that answers cost no disk access and a restart forgets
// nothing.
//
// Invariants:
//
//   - Memory is the authority; internal/store/sqlitefile keeps the file, and says
//     what happens when something happens to it.
//   - Open reads the file into memory, the newest first, until memory is full.
//     What memory has no room for is read when it is asked for. Memory knows the
//     row of each, so that no one is looked for in vain, and the file needs no
//     index: keeping one would cost the writer five times what its rows do.
//   - When another file of a greylist takes the place of this one, its entries are
//     added to those in memory.
//   - Expired entries are removed in small steps between the writes.
package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

const (
	// batchRows bounds one transaction, not counting the rest of a shard.
	batchRows = 10_000
	// purgeRows is how many rows are looked at between two writes.
	purgeRows = 500
	// purgePause is the time from the start of one purge to the next.
	purgePause = 10 * time.Minute
	// DefaultMaxEntries bounds the entries in memory, about 300 MB when full of
	// IDs of 75 octets. A triplet has one, or two when SPF authorised its domain.
	DefaultMaxEntries = 1 << 21
)

// Options describe a store.
type Options struct {
	Path       string
	MaxEntries int                    // in memory; 0: DefaultMaxEntries
	Report     func(sqlitefile.Event) // hears of events, from the store's goroutines and from Open
	Now        func() time.Time       // clock of purging and of names; nil: time.Now
}

// Store implements greylist.Store and greylist.Browser.
type Store struct {
	memory *memstore.Store
	keeper *sqlitefile.Keeper
	now    func() time.Time
	limits atomic.Pointer[greylist.Limits] // of purging; nil: nothing is purged

	life   func() context.Context // ends with Close
	cancel context.CancelFunc

	// What follows changes with the file.
	lookup  *sql.Stmt
	nextRow int64

	// What follows belongs to the writer.
	purge    purge
	outdated []memstore.Row // of an older scheme; Deleted: written under another ID
}

// Open opens or makes the file. A corrupt one is set aside and reported.
func Open(o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	s := &Store{now: o.Now}
	s.memory = memstore.New(memstore.Options{MaxEntries: o.MaxEntries, Backing: backing{s}})
	life, cancel := context.WithCancel(context.Background())
	s.life, s.cancel = func() context.Context { return life }, cancel
	var err error
	s.keeper, err = sqlitefile.Open(sqlitefile.Options{Path: o.Path, Schema: schema, Report: o.Report, Now: o.Now}, writer{s})
	if err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

// SetLimits says what counts as expired from now on.
func (s *Store) SetLimits(l greylist.Limits) { s.limits.Store(&l) }

// Seen implements greylist.Store.
func (s *Store) Seen(ctx context.Context, key greylist.Key, now time.Time, limits greylist.Limits) (greylist.Record, error) {
	s.keeper.Pace.Wait(ctx)
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
func (s *Store) Sync(ctx context.Context) error { return s.keeper.Sync(ctx) }

// Failing reports whether the file cannot be written now.
func (s *Store) Failing() bool { return s.keeper.Pace.Failing() }

// Close writes what has changed and closes the file. It must be called once,
// after the last use. Its error says how much is lost, if anything is.
func (s *Store) Close() error {
	s.cancel()
	return s.keeper.Close()
}

// backing lets memory ask the file.
type backing struct{ *Store }

// Load implements memstore.Backing.
func (b backing) Load(ctx context.Context, rowID int64) (found memstore.Row, ok bool, err error) {
	err = b.keeper.Read(func(*sqlitefile.File) (err error) {
		rows, err := b.lookup.QueryContext(ctx, rowID)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		if rows.Next() {
			found, err = scan(rows)
			ok = err == nil
			return err
		}
		return rows.Err()
	})
	return found, ok, err
}
