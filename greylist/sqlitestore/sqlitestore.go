// Package sqlitestore keeps a greylist in memory, and writes changes to a SQLite file
// in the background. So answers need no disk access, and nothing is lost at a
// restart.
//
// Invariants:
//
//   - Memory is the authority. internal/store/sqlitefile writes the file, and
//     handles a file that is removed, replaced or damaged.
//   - Open reads the file into memory, the newest entries first, until memory is
//     full. Other entries are read when they are needed. Memory keeps the row
//     number of each, so that only existing rows are read and the file needs no
//     index. An index would cost the writer five times as much as the rows.
//   - When another greylist file replaces this one, its entries are added to those
//     in memory.
//   - New entries and those that have changed are written at the end of the file or where
//     they are, within a second. In small steps between these writes all rows are visited
//     in their order: expired entries are removed, and the times of latest sightings
//     are written, which may wait. One by one these cost a page of the file each.
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
	// batchRows is how many rows are taken from memory at once, which may exceed it by
	// the rest of a shard.
	batchRows = 10_000
	// txRows bounds one transaction. A commit takes up to 10 µs a row, and requests may
	// have to wait for it.
	txRows = 250
	// reviewRows is how many rows are checked between two writes.
	reviewRows = 500
	// reviewPause is the time from the start of one review of all rows to the next.
	reviewPause = 10 * time.Minute
)

// Options describe a store.
type Options struct {
	Path   string
	Memory int64                  // octets for the entries in memory; 0: memstore.DefaultMemory
	Report func(sqlitefile.Event) // is called for each event, by the store's goroutines and by Open
	Now    func() time.Time       // clock for purging and for file names; nil: time.Now
}

// Store implements greylist.Store and greylist.Browser.
type Store struct {
	memory *memstore.Store
	keeper *sqlitefile.Keeper
	now    func() time.Time
	size   int64                           // of memory
	limits atomic.Pointer[greylist.Limits] // of purging; nil: nothing is purged

	life   func() context.Context // ends with Close
	cancel context.CancelFunc

	// These fields change with the file.
	lookup  *sql.Stmt   // one row
	after   *sql.Stmt   // a page of rows
	full    []*sql.Stmt // the writer's statements, see prepare; nil: not prepared yet
	nextRow int64

	// These fields are used by the writer only.
	review   review
	outdated bool    // there are rows of an older scheme
	renamed  []int64 // the rows among them whose entry now has another ID
	marked   int64   // rows up to this one are of this scheme
}

// Open opens or creates the file. A corrupt file is renamed and reported.
func Open(o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{now: o.Now, size: o.Memory}
	s.memory = s.newMemory()
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

func (s *Store) newMemory() *memstore.Store {
	return memstore.New(memstore.Options{Memory: s.size, Backing: backing{s}})
}

// SetLimits sets the limits by which entries expire from now on.
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

// Sync writes all changes now.
func (s *Store) Sync(ctx context.Context) error { return s.keeper.Sync(ctx) }

// Forgotten returns how many entries were dropped from memory and are not read from the
// file any more, because memory has no room for the numbers of their rows.
func (s *Store) Forgotten() uint64 { return s.memory.Forgotten() }

// Failing reports whether the file cannot be written now.
func (s *Store) Failing() bool { return s.keeper.Pace.Failing() }

// Close writes all changes and closes the file. It must be called once, after the
// last use. If something is lost, its error says how much.
func (s *Store) Close() error {
	s.memory.Hasten()
	s.cancel()
	return s.keeper.Close()
}

// backing reads rows of the file for memory.
type backing struct{ *Store }

// Load implements memstore.Backing.
func (b backing) Load(ctx context.Context, rowID int64) (found memstore.Row, ok bool, err error) {
	err = b.keeper.Read(ctx, func(*sqlitefile.File) (err error) {
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
