// Package sqlitestore keeps counters in memory and writes them to a SQLite file in the
// background. Answers need no disk access, and a restart loses at most the last second.
// Reservations of transactions are not written: their End counts them. What has counted
// is written with the transaction (recent.go), so that its repetition does not count.
//
// Busy senders change their counters with each mail. So changes first go into a journal,
// with one row for each write. From time to time they are written to the rows of the
// counters. Writing each changed counter every time would cost more than the decisions.
package sqlitestore

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// Options describe a store.
type Options struct {
	Path   string
	Memory memstore.Options
	Report func(sqlitefile.Event)
	Now    func() time.Time // nil: time.Now
	// Damaged is called with the number of rows that cannot be read. They were moved to the
	// table unreadable. first is the error of one of them. It may be nil.
	Damaged func(rows int, first error)
	// Salvaged is called with the number of blocks that were read from a file that cannot
	// be used. err says why there may have been more. It may be nil.
	Salvaged func(blocks int, err error)
	// Recent bounds the octets of transactions in the file; 0 means 16 MB. The oldest are
	// removed first: a mail server repeats a request within seconds.
	Recent int
}

// Store implements limit.Store.
type Store struct {
	*memstore.Store
	keeper *sqlitefile.Keeper
	writer *writer
}

// Open opens or creates the file. A corrupt file is renamed and reported.
func Open(o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{Store: memstore.New(o.Memory)}
	s.Follow()
	var err error
	s.writer = &writer{memory: s.Store, now: o.Now, recent: recent{most: cmp.Or(o.Recent, maxRecent)}, damaged: o.Damaged, salvaged: o.Salvaged}
	s.keeper, err = sqlitefile.Open(sqlitefile.Options{Path: o.Path, Schema: schema, Report: o.Report, Now: o.Now}, s.writer)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Take implements limit.Store.
func (s *Store) Take(ctx context.Context, op *limit.Op) (limit.Answer, error) {
	s.keeper.Pace.Wait(ctx)
	return s.Store.Take(ctx, op)
}

// SetBlock implements limit.Store. It returns when the block is on disk, because a
// person relies on it. If it cannot be written, the error wraps limit.ErrUnsaved.
func (s *Store) SetBlock(ctx context.Context, b limit.Block, lift bool) error {
	if err := s.Store.SetBlock(ctx, b, lift); err != nil {
		return err
	}
	if err := s.Sync(ctx); err != nil {
		return fmt.Errorf("%w: %w", limit.ErrUnsaved, err)
	}
	return nil
}

// Sync writes what has changed.
func (s *Store) Sync(ctx context.Context) error {
	s.writer.urgent.Store(true)
	return s.keeper.Sync(ctx)
}

// Failing reports whether the file cannot be written now.
func (s *Store) Failing() bool { return s.keeper.Pace.Failing() }

// Close writes pending changes and closes the file. It must be called once, after the
// last use.
func (s *Store) Close() error {
	s.writer.urgent.Store(true)
	return s.keeper.Close()
}

var schema = sqlitefile.Schema{
	Name: "limit", ID: 0x506f4c69, Version: 1,
	Create: `
CREATE TABLE IF NOT EXISTS counters (
	id     TEXT PRIMARY KEY, -- "login.recipients/3600 alice@example.org"
	logins INTEGER NOT NULL,
	window INTEGER NOT NULL, -- milliseconds
	last   INTEGER NOT NULL, -- milliseconds since 1970
	data   BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (
	seq  INTEGER PRIMARY KEY,
	data BLOB NOT NULL -- counters that have changed since: see journal.go
);
CREATE TABLE IF NOT EXISTS transactions (
	seq  INTEGER PRIMARY KEY,
	ends INTEGER NOT NULL, -- milliseconds since 1970; then the row is not needed
	data BLOB NOT NULL     -- see memstore/recent.go
);
CREATE TABLE IF NOT EXISTS blocks (
	login TEXT PRIMARY KEY,
	since INTEGER NOT NULL,
	until INTEGER NOT NULL -- 0 for ever
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unreadable (
	seq    INTEGER PRIMARY KEY,
	source TEXT NOT NULL, -- the table of the row
	name   TEXT,          -- its key
	data   BLOB
);
`}
