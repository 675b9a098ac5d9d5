package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"slices"
	"strings"
	"time"

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
	w.review, w.outdated, w.renamed, w.marked, w.full = review{}, false, nil, 0, nil
	start, err := f.Prepare(ctx, spanStart)
	if err != nil {
		return err
	}
	rows, err := f.PreparePacked(ctx, rowColumns, spanRows)
	if err != nil {
		return err
	}
	return newestFirst(ctx, f, start, rows, w.fillPage)
}

// fillPage adds a page of rows to memory. Rows of an older scheme are converted. If the
// ID of one has changed, the next turn writes a new row and removes the old one.
func (w writer) fillPage(page []row) {
	rows := make([]memstore.Row, 0, len(page))
	for _, r := range page {
		if r.scheme < greylist.Scheme {
			w.outdated = true
			if e := greylist.Migrate(r.Entry); e.ID != r.ID {
				w.memory.Adopt(e)
				w.renamed = append(w.renamed, r.RowID)
				continue
			}
		}
		rows = append(rows, r.Row)
	}
	w.memory.Fill(rows)
}

// renewRows is how many rows of the file one turn looks at, to mark them as rows of this
// scheme. It is some milliseconds of work.
const renewRows = 2000

// renew removes rows of an older scheme whose entries have been written under another
// ID, and marks some of the others as rows of this scheme. The rest is marked in later
// turns, so that no turn takes long. An unmarked row is only read as an older one once
// more.
func (w writer) renew(f *sqlitefile.File) error {
	if !w.outdated {
		return nil
	}
	for some := range slices.Chunk(w.renamed, txRows) {
		rows := make([]memstore.Row, len(some))
		for i, rowID := range some {
			rows[i] = memstore.Row{RowID: rowID, Deleted: true}
		}
		if err := w.store(f, rows); err != nil {
			return err
		}
	}
	w.renamed = nil
	var last sql.NullInt64
	if err := f.Writer.QueryRow("SELECT MAX(rowid) FROM (SELECT rowid FROM entries WHERE rowid > ? ORDER BY rowid LIMIT ?)", w.marked, renewRows).Scan(&last); err != nil {
		return err
	}
	if !last.Valid {
		w.outdated = false
		return nil
	}
	_, err := f.Writer.Exec("UPDATE entries SET scheme = ? WHERE rowid > ? AND rowid <= ? AND scheme < ?", greylist.Scheme, w.marked, last.Int64, greylist.Scheme)
	if err == nil {
		w.marked = last.Int64
	}
	return err
}

// Forget implements sqlitefile.Forgetter. The store is not in use yet.
func (w writer) Forget() { w.memory = w.newMemory() }

// Lost implements sqlitefile.Memory.
func (w writer) Lost() { w.memory.Rewrite() }

// Pending implements sqlitefile.Memory.
func (w writer) Pending() int { return w.memory.Pending() }

// Idle implements sqlitefile.Memory.
func (w writer) Idle(f *sqlitefile.File) error { return w.reviewStep(f) }

// Turn implements sqlitefile.Memory. It visits all shards of memory once. What had
// changed when it began is stored when it ends.
func (w writer) Turn(f *sqlitefile.File) error {
	for from := 0; ; {
		batch, next := w.memory.Take(from, batchRows)
		if err := w.flush(f, batch); err != nil {
			return err
		}
		if from = next; from == 0 {
			return w.renew(f)
		}
	}
}

// flush writes what was taken from memory, and tells memory what was written.
func (s *Store) flush(f *sqlitefile.File, batch *memstore.Batch) (err error) {
	for part := range batch.Parts(txRows) {
		if err == nil {
			err = s.store(f, part.Rows)
		}
		if err != nil {
			s.memory.Failed(part)
		} else {
			s.memory.Written(part)
		}
	}
	return err
}

// rowsAtOnce is how many rows one statement writes. A statement costs more than a row.
const rowsAtOnce = 50

// The statements that write rows, by their number.
const (
	fresh = iota
	known
	gone
)

var statements = []func(rows int) string{fresh: insert, known: upsert, gone: remove}

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

// remove returns the statement that deletes rows.
func remove(rows int) string {
	return "DELETE FROM entries WHERE rowid IN (" + strings.Repeat(",?", rows)[1:] + ")"
}

// prepare prepares the statements for rowsAtOnce rows, once for each file.
func (s *Store) prepare(f *sqlitefile.File) error {
	for len(s.full) < len(statements) {
		full, err := f.PrepareWrite(statements[len(s.full)](rowsAtOnce))
		if err != nil {
			return err
		}
		s.full = append(s.full, full)
	}
	return nil
}

// store writes rows in one transaction, and sets RowID of those that are new. After
// an error nothing is written, and the new RowIDs are not valid. store lets requests
// go first, and rests, unless the file is late; otherwise the scheduler could make
// requests wait for 10 ms.
func (s *Store) store(f *sqlitefile.File, rows []memstore.Row) error {
	if err := s.prepare(f); err != nil {
		return err
	}
	next := s.nextRow
	began := time.Now()
	err := f.InTx(func(tx *sql.Tx) (err error) {
		next, err = s.storeIn(tx, rows, next)
		return err
	})
	if err == nil {
		s.nextRow = next
	}
	s.keeper.Pace.Rest(s.life(), time.Since(began))
	return err
}

// storeIn writes rows. New ones get rowids beginning at next; it returns the rowid
// after the last.
func (s *Store) storeIn(tx *sql.Tx, rows []memstore.Row, next int64) (int64, error) {
	writers := make([]rowWriter, len(statements))
	for i := range writers {
		writers[i] = rowWriter{tx: tx, statement: statements[i], full: s.full[i]}
	}
	for i := range rows {
		if i%rowsAtOnce == 0 && !s.keeper.Pace.Late() {
			runtime.Gosched()
		}
		row, w := &rows[i], &writers[known]
		switch {
		case row.Deleted && row.RowID == 0: // it was never written
			continue
		case row.Deleted:
			w = &writers[gone]
		case row.RowID == 0:
			row.RowID = next
			next++
			w = &writers[fresh]
		}
		if err := w.add(row); err != nil {
			return next, err
		}
	}
	var errs []error
	for i := range writers {
		errs = append(errs, writers[i].finish())
	}
	return next, errors.Join(errs...)
}

// rowWriter collects rows for one statement.
type rowWriter struct {
	tx        *sql.Tx
	statement func(rows int) string
	full      *sql.Stmt // for rowsAtOnce rows
	rows      int
	args      []any
}

// add adds a row. It writes the rows that were added when they are enough for a
// statement.
func (w *rowWriter) add(r *memstore.Row) error {
	w.args = append(w.args, r.RowID)
	if !r.Deleted {
		last := r.Triplet.Last
		if r.ID.IsClient() {
			last = r.Client.Last
		}
		w.args = append(w.args, string(r.ID), int64(r.Triplet.First), int64(last),
			int64(r.Triplet.Passed), r.Client.Passes, r.Client.Manual, greylist.Scheme)
	}
	if w.rows++; w.rows < rowsAtOnce {
		return nil
	}
	_, err := w.tx.Stmt(w.full).Exec(w.args...)
	w.rows, w.args = 0, w.args[:0]
	return err
}

func (w *rowWriter) finish() error {
	if w.rows == 0 {
		return nil
	}
	_, err := w.tx.Exec(w.statement(w.rows), w.args...)
	return err
}
