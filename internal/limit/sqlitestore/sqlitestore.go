// Package sqlitestore keeps counters in memory and writes them behind to a SQLite
// file, so that answers cost no disk access and a restart forgets at most the last
// second. What a transaction has reserved is not written: its End counts anew.
//
// Those who send all the time change their counters with each mail. What has changed
// goes into a journal, a row for each write, and now and then into the rows of the
// counters: a row for each counter and write would cost more than the decisions.
package sqlitestore

import (
	"context"
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
}

// Store implements limit.Store.
type Store struct {
	*memstore.Store
	keeper *sqlitefile.Keeper
	writer *writer
}

// Open opens or makes the file. A corrupt one is set aside and reported.
func Open(o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{Store: memstore.New(o.Memory)}
	s.Follow()
	var err error
	s.writer = &writer{memory: s.Store, now: o.Now}
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

// SetBlock implements limit.Store. It returns when the block is written: a person
// counts on it.
func (s *Store) SetBlock(ctx context.Context, b limit.Block, lift bool) error {
	if err := s.Store.SetBlock(ctx, b, lift); err != nil {
		return err
	}
	return s.Sync(ctx)
}

// Sync writes what has changed.
func (s *Store) Sync(ctx context.Context) error {
	s.writer.urgent.Store(true)
	return s.keeper.Sync(ctx)
}

// Failing reports whether the file cannot be written now.
func (s *Store) Failing() bool { return s.keeper.Pace.Failing() }

// Close writes what has changed and closes the file. It must be called once, after
// the last use.
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
CREATE TABLE IF NOT EXISTS blocks (
	login TEXT PRIMARY KEY,
	since INTEGER NOT NULL,
	until INTEGER NOT NULL -- 0 for ever
) WITHOUT ROWID;
`}
