// Package sqlitestore keeps counters in memory and writes them behind to a SQLite
// file, so that answers cost no disk access and a restart forgets at most the last
// second. What a transaction has reserved is not written: its End counts anew.
package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
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
CREATE TABLE IF NOT EXISTS blocks (
	login TEXT PRIMARY KEY,
	since INTEGER NOT NULL,
	until INTEGER NOT NULL -- 0 for ever
) WITHOUT ROWID;
`}

// writer implements sqlitefile.Memory.
type writer struct {
	memory *memstore.Store
	now    func() time.Time

	urgent atomic.Bool // the next turn must write
	wrote  time.Time   // when the latest turn that wrote began
}

// writeEvery is the time between two turns that write: a login that sends all the time
// changes its counters with each mail. With the keeper's own interval a crash loses
// less than a second.
const writeEvery = 600 * time.Millisecond

// Fill implements sqlitefile.Memory.
func (w *writer) Fill(ctx context.Context, f *sqlitefile.File) error {
	err := each(ctx, f.Reader, "SELECT id, logins, window, last, data FROM counters ORDER BY last DESC", func(rows *sql.Rows) error {
		var r memstore.Row
		var window int64
		if err := rows.Scan(&r.ID, &r.Logins, &window, &r.Last, &r.Data); err != nil {
			return err
		}
		r.Window = time.Duration(window) * time.Millisecond
		return w.memory.Fill(r)
	})
	if err != nil {
		return err
	}
	var blocks []limit.Block
	err = each(ctx, f.Reader, "SELECT login, since, until FROM blocks", func(rows *sql.Rows) error {
		var b limit.Block
		var since, until int64
		if err := rows.Scan(&b.Login, &since, &until); err != nil {
			return err
		}
		b.Since = time.UnixMilli(since)
		if until != 0 {
			b.Until = time.UnixMilli(until)
		}
		blocks = append(blocks, b)
		return nil
	})
	w.memory.FillBlocks(blocks)
	return err
}

func each(ctx context.Context, db *sql.DB, query string, f func(*sql.Rows) error) (err error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Lost implements sqlitefile.Memory.
func (w *writer) Lost() {
	w.urgent.Store(true)
	w.memory.Rewrite()
}

// Pending implements sqlitefile.Memory.
func (w *writer) Pending() int { return w.memory.Pending() }

// purgeLooks is how many counters are looked at between two writes.
const purgeLooks = 500

// Idle implements sqlitefile.Memory.
func (w *writer) Idle(*sqlitefile.File) { w.memory.Purge(w.now(), purgeLooks) }

// batchRows is how many counters are copied, and written, at once.
const batchRows = 1000

// Turn implements sqlitefile.Memory. It writes what had changed when it began.
func (w *writer) Turn(f *sqlitefile.File) error {
	if !w.urgent.Swap(false) && time.Since(w.wrote) < writeEvery {
		return nil
	}
	began := time.Now()
	if err := w.turn(f); err != nil {
		w.urgent.Store(true)
		return err
	}
	w.wrote = began
	return nil
}

func (w *writer) turn(f *sqlitefile.File) error {
	for range (limit.DefaultLogins+limit.DefaultStrangers)/batchRows + 1 {
		b := w.memory.TakeBatch(batchRows)
		if !b.Clear && len(b.Gone)+len(b.Rows) == 0 && b.Blocks == nil {
			return nil
		}
		if err := store(f, b); err != nil {
			w.memory.Failed(b)
			return err
		}
		if !b.More {
			return nil
		}
	}
	return nil
}

// store writes a batch in one transaction.
func store(f *sqlitefile.File, b *memstore.Batch) (err error) {
	tx, err := f.Writer.Begin()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if undo := tx.Rollback(); !errors.Is(undo, sql.ErrTxDone) {
				err = errors.Join(err, undo)
			}
		}
	}()
	if b.Clear {
		if _, err := tx.Exec("DELETE FROM counters"); err != nil {
			return err
		}
	}
	if err := errors.Join(remove(tx, b.Gone), upsert(tx, b.Rows), storeBlocks(tx, b.Blocks)); err != nil {
		return err
	}
	return tx.Commit()
}

// remove deletes counters.
func remove(tx *sql.Tx, ids []string) error {
	return prepared(tx, len(ids), "DELETE FROM counters WHERE id = ?", func(i int) []any { return []any{ids[i]} })
}

// rowsAtOnce is how many rows one statement writes: the cost of a statement outweighs
// that of a row.
const rowsAtOnce = 50

// upsert writes counters, in the order of the file, whose pages are then changed once
// each.
func upsert(tx *sql.Tx, rows []memstore.Row) error {
	slices.SortFunc(rows, func(a, b memstore.Row) int { return strings.Compare(a.ID, b.ID) })
	whole := len(rows) / rowsAtOnce * rowsAtOnce
	err := prepared(tx, whole/rowsAtOnce, upsertQuery(rowsAtOnce), func(i int) []any {
		return columns(rows[i*rowsAtOnce : (i+1)*rowsAtOnce])
	})
	if rest := rows[whole:]; err == nil && len(rest) > 0 {
		_, err = tx.Exec(upsertQuery(len(rest)), columns(rest)...)
	}
	return err
}

func upsertQuery(rows int) string {
	return "INSERT INTO counters (id, logins, window, last, data) VALUES " + strings.Repeat(",(?,?,?,?,?)", rows)[1:] +
		" ON CONFLICT (id) DO UPDATE SET last = excluded.last, data = excluded.data"
}

func columns(rows []memstore.Row) []any {
	args := make([]any, 0, 5*len(rows))
	for i := range rows {
		r := &rows[i]
		args = append(args, r.ID, r.Logins, r.Window.Milliseconds(), r.Last, r.Data)
	}
	return args
}

// storeBlocks writes all blocks anew; nil means that they are as they were.
func storeBlocks(tx *sql.Tx, blocks []limit.Block) error {
	if blocks == nil {
		return nil
	}
	if _, err := tx.Exec("DELETE FROM blocks"); err != nil {
		return err
	}
	return prepared(tx, len(blocks), "INSERT INTO blocks (login, since, until) VALUES (?,?,?)", func(i int) []any {
		b, until := &blocks[i], int64(0)
		if !b.Until.IsZero() {
			until = b.Until.UnixMilli()
		}
		return []any{b.Login, b.Since.UnixMilli(), until}
	})
}

// prepared runs a statement n times.
func prepared(tx *sql.Tx, n int, query string, args func(i int) []any) (err error) {
	if n == 0 {
		return nil
	}
	s, err := tx.Prepare(query)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for i := range n {
		if _, err := s.Exec(args(i)...); err != nil {
			return err
		}
	}
	return nil
}
