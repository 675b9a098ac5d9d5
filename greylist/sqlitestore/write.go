package sqlitestore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"runtime"
	"slices"
	"strings"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// schema of the file. Version 1 had an index by a hash of the ID; versions 1 and 2
// had IDs of greylist.Scheme 1.
var schema = sqlitefile.Schema{
	Name: "greylist", ID: 0x506f4772, Version: 3, Tables: []string{"entries"},
	Migrate: map[int]string{
		1: "DROP INDEX IF EXISTS entries_hash; ALTER TABLE entries DROP COLUMN hash;",
		2: "ALTER TABLE entries ADD COLUMN scheme INTEGER NOT NULL DEFAULT 1;",
	},
	Create: `
CREATE TABLE IF NOT EXISTS entries (
	rowid  INTEGER PRIMARY KEY,
	id     TEXT NOT NULL,    -- "client sender recipient", or a client
	first  INTEGER NOT NULL, -- times in milliseconds since 1970, 0 for never
	last   INTEGER NOT NULL,
	passed INTEGER NOT NULL,
	passes INTEGER NOT NULL, -- of a client
	manual INTEGER NOT NULL,
	scheme INTEGER NOT NULL DEFAULT 1 -- greylist.Scheme by which the id was made
);
`}

// rowColumns is what insert writes and scan reads.
const rowColumns = "rowid, id, first, last, passed, passes, manual, scheme"

// writer implements sqlitefile.Forgetter.
type writer struct{ *Store }

// Fill implements sqlitefile.Memory. It reads the newest rows first.
func (w writer) Fill(ctx context.Context, f *sqlitefile.File) (err error) {
	if w.lookup, err = f.Prepare(ctx, "SELECT "+rowColumns+" FROM entries WHERE rowid = ?"); err != nil {
		return err
	}
	if w.after, err = f.PreparePacked(ctx, rowColumns, pageAfter); err != nil {
		return err
	}
	if err := f.Reader.QueryRowContext(ctx, "SELECT COALESCE(MAX(rowid), 0) + 1 FROM entries").Scan(&w.nextRow); err != nil {
		return err
	}
	w.purge, w.outdated = purge{}, nil
	before, err := f.PreparePacked(ctx, rowColumns, pageBefore)
	if err != nil {
		return err
	}
	return newestFirst(ctx, f, before, w.fillPage)
}

// fillPage adds a page of rows to memory, in their order.
func (w writer) fillPage(page []row) {
	rows := make([]memstore.Row, 0, len(page))
	for _, r := range page {
		if r.scheme < greylist.Scheme {
			w.memory.Fill(rows)
			rows = rows[:0]
			w.bringUp(r.Row)
		} else {
			rows = append(rows, r.Row)
		}
	}
	w.memory.Fill(rows)
}

// bringUp converts a row of an older scheme and adds it to memory. If its ID has
// changed, the next turn writes a new row and removes the old one.
func (w writer) bringUp(r memstore.Row) {
	e := greylist.Migrate(r.Entry)
	if e.ID == r.ID {
		w.memory.Fill([]memstore.Row{r})
		r.Deleted = false
	} else {
		w.memory.Adopt(e)
		r.Deleted = true
	}
	w.outdated = append(w.outdated, r)
}

// renew marks rows of an older scheme as rows of this one, and removes those whose
// entries have been written under another ID.
func (w writer) renew(f *sqlitefile.File) error {
	if len(w.outdated) == 0 {
		return nil
	}
	if err := w.store(f, slices.DeleteFunc(w.outdated, func(r memstore.Row) bool { return !r.Deleted })); err != nil {
		return err
	}
	w.outdated = nil
	_, err := f.Writer.Exec("UPDATE entries SET scheme = ? WHERE scheme < ?", greylist.Scheme, greylist.Scheme)
	return err
}

// Forget implements sqlitefile.Forgetter. The store is not in use yet.
func (w writer) Forget() { w.memory = w.newMemory() }

// Lost implements sqlitefile.Memory.
func (w writer) Lost() { w.memory.Rewrite() }

// Pending implements sqlitefile.Memory.
func (w writer) Pending() int { return w.memory.Pending() }

// Idle implements sqlitefile.Memory.
func (w writer) Idle(f *sqlitefile.File) { w.purgeStep(f) }

// Turn implements sqlitefile.Memory. It visits all shards of memory once. What had
// changed when it began is stored when it ends.
func (w writer) Turn(f *sqlitefile.File) error {
	if err := turn(w.memory, func(rows []memstore.Row) error { return w.store(f, rows) }); err != nil {
		return err
	}
	return w.renew(f)
}

func turn(memory *memstore.Store, store func([]memstore.Row) error) error {
	for from := 0; ; {
		batch, next := memory.Take(from, batchRows)
		if len(batch.Rows) > 0 {
			if err := store(batch.Rows); err != nil {
				memory.Failed(batch)
				return err
			}
			memory.Written(batch)
		}
		if from = next; from == 0 {
			return nil
		}
	}
}

const (
	columns = 8
	// rowsAtOnce is how many rows one statement writes. A statement costs more than
	// a row.
	rowsAtOnce = 50
)

// insert returns the statement that writes new rows. With OR FAIL, SQLite does not
// copy pages to undo this statement alone. After an error the whole transaction is
// undone.
func insert(rows int) string {
	const values = ",(?,?,?,?,?,?,?,?)"
	return "INSERT OR FAIL INTO entries (" + rowColumns + ") VALUES " +
		strings.Repeat(values, rows)[1:]
}

// upsert returns the statement that writes rows that the file already has.
func upsert(rows int) string {
	return insert(rows) +
		" ON CONFLICT (rowid) DO UPDATE SET first = excluded.first, last = excluded.last, passed = excluded.passed, passes = excluded.passes, manual = excluded.manual, scheme = excluded.scheme"
}

// store writes rows in one transaction, and sets RowID of those that are new. After
// an error nothing is written, and the new RowIDs are not valid. store lets requests
// go first unless the file is late; otherwise the scheduler could make them wait for
// 10 ms.
func (s *Store) store(f *sqlitefile.File, rows []memstore.Row) error {
	next := s.nextRow
	err := f.InTx(func(tx *sql.Tx) (err error) {
		next, err = s.storeIn(tx, rows, next)
		return err
	})
	if err == nil {
		s.nextRow = next
	}
	return err
}

// storeIn writes rows. New ones get rowids beginning at next; it returns the rowid
// after the last.
func (s *Store) storeIn(tx *sql.Tx, rows []memstore.Row, next int64) (int64, error) {
	fresh, known := rowWriter{tx: tx, statement: insert}, rowWriter{tx: tx, statement: upsert}
	for i, row := range byRow(rows) {
		if i%rowsAtOnce == 0 && !s.keeper.Pace.Late() {
			runtime.Gosched()
		}
		if row.Deleted {
			if err := remove(tx, row.RowID); err != nil {
				return next, err
			}
			continue
		}
		w := &known
		if row.RowID == 0 {
			row.RowID = next
			next++
			w = &fresh
		}
		if err := w.add(row); err != nil {
			return next, err
		}
	}
	return next, errors.Join(fresh.finish(), known.finish())
}

// byRow sorts rows by their place in the file, so that each page is changed only
// once.
func byRow(rows []memstore.Row) []*memstore.Row {
	sorted := make([]*memstore.Row, len(rows))
	for i := range rows {
		sorted[i] = &rows[i]
	}
	slices.SortFunc(sorted, func(a, b *memstore.Row) int { return cmp.Compare(a.RowID, b.RowID) })
	return sorted
}

// rowWriter collects rows for one statement.
type rowWriter struct {
	tx        *sql.Tx
	statement func(rows int) string
	full      *sql.Stmt
	args      []any
}

func (w *rowWriter) add(r *memstore.Row) error {
	last := r.Triplet.Last
	if r.ID.IsClient() {
		last = r.Client.Last
	}
	w.args = append(w.args, r.RowID, string(r.ID), int64(r.Triplet.First), int64(last),
		int64(r.Triplet.Passed), r.Client.Passes, r.Client.Manual, greylist.Scheme)
	if len(w.args) < columns*rowsAtOnce {
		return nil
	}
	if w.full == nil {
		var err error
		if w.full, err = w.tx.Prepare(w.statement(rowsAtOnce)); err != nil {
			return err
		}
	}
	_, err := w.full.Exec(w.args...)
	w.args = w.args[:0]
	return err
}

func remove(tx *sql.Tx, row int64) error {
	if row == 0 {
		return nil // it was never written
	}
	_, err := tx.Exec("DELETE FROM entries WHERE rowid = ?", row)
	return err
}

func (w *rowWriter) finish() error {
	if w.full != nil {
		defer w.full.Close()
	}
	if len(w.args) == 0 {
		return nil
	}
	_, err := w.tx.Exec(w.statement(len(w.args)/columns), w.args...)
	return err
}
