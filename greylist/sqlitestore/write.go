package sqlitestore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
)

// write is the one goroutine that writes to the file. It ends with Close.
func (s *Store) write() {
	ticker := time.NewTicker(flushInterval)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.corrupt:
			s.startAnew()
		case answer := <-s.syncs:
			answer <- s.flush()
		case <-ticker.C:
			s.tick()
		}
	}
}

func (s *Store) tick() {
	if s.behind.failing.Load() && s.options.Now().Before(s.retryAt) {
		return
	}
	if s.flush() == nil {
		s.purgeStep()
	}
}

// flush writes all that has changed and reports when that begins or ceases to
// fail.
func (s *Store) flush() error {
	err := s.behind.turn()
	if err != nil && isCorrupt(err) {
		if err = s.startAnew(); err == nil {
			err = s.behind.turn()
		}
	}
	failing := s.behind.failing.Swap(err != nil)
	switch {
	case err == nil && failing:
		s.options.Report(Event{Kind: WritingAgain, Path: s.options.Path})
	case err != nil:
		err = explain(s.options.Path, err)
		s.retryAt = s.options.Now().Add(failPause)
		if !failing {
			s.options.Report(Event{Kind: WriteFailing, Path: s.options.Path, Err: err})
		}
	}
	return err
}

func (s *Store) store(rows []memstore.Row) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.file.store(rows, s.behind.late)
}

// startAnew replaces a file that turned out to be corrupt. What is in memory
// goes into the new one.
func (s *Store) startAnew() error {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	closed := s.file.close()
	f, err := openFile(ctx, s.options.Path)
	if err == nil { // its check has found it sound after all
		s.file = f
		return nil
	}
	if isCorrupt(err) {
		f, err = s.replace(ctx, err)
	}
	if err != nil {
		return errors.Join(err, closed)
	}
	s.file = f
	s.memory.Rewrite()
	return nil
}

const (
	columns = 7
	// rowsAtOnce is how many rows one statement writes: the cost of a
	// statement outweighs that of a row.
	rowsAtOnce = 50
)

// insert writes new rows. OR FAIL spares SQLite the copies of pages by which it
// could undo this statement alone; the whole transaction is undone on error.
func insert(rows int) string {
	const values = ",(?,?,?,?,?,?,?)"
	return "INSERT OR FAIL INTO entries (" + rowColumns + ") VALUES " +
		strings.Repeat(values, rows)[1:]
}

// upsert writes rows that the file has.
func upsert(rows int) string {
	return insert(rows) +
		" ON CONFLICT (rowid) DO UPDATE SET first = excluded.first, last = excluded.last, passed = excluded.passed, passes = excluded.passes, manual = excluded.manual"
}

// store writes rows in one transaction and names those that are new. On error
// nothing is written, and the names are void. Requests come first, unless it is
// late: the scheduler itself would let them wait 10 ms.
func (f *file) store(rows []memstore.Row, late func() bool) (err error) {
	tx, err := f.writer.Begin()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreDone(tx.Rollback()))
		}
	}()
	next := f.nextRow
	fresh, known := rowWriter{tx: tx, statement: insert}, rowWriter{tx: tx, statement: upsert}
	for i, row := range byRow(rows) {
		if i%rowsAtOnce == 0 && !late() {
			runtime.Gosched()
		}
		if row.Deleted {
			if err := remove(tx, row.RowID); err != nil {
				return err
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
			return err
		}
	}
	if err := errors.Join(fresh.finish(), known.finish()); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	f.nextRow = next
	return nil
}

// byRow puts rows into the order of the file, whose pages are then changed once
// each.
func byRow(rows []memstore.Row) []*memstore.Row {
	sorted := make([]*memstore.Row, len(rows))
	for i := range rows {
		sorted[i] = &rows[i]
	}
	slices.SortFunc(sorted, func(a, b *memstore.Row) int { return cmp.Compare(a.RowID, b.RowID) })
	return sorted
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
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
		int64(r.Triplet.Passed), r.Client.Passes, r.Client.Manual)
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

// scan reads rowColumns.
func scan(rows *sql.Rows) (memstore.Row, error) {
	var r memstore.Row
	var first, last, passed int64
	err := rows.Scan(&r.RowID, &r.ID, &first, &last, &passed, &r.Client.Passes, &r.Client.Manual)
	if r.ID.IsClient() {
		r.Client.Last = greylist.Stamp(last)
	} else {
		r.Triplet = greylist.Triplet{First: greylist.Stamp(first), Last: greylist.Stamp(last), Passed: greylist.Stamp(passed)}
	}
	return r, err
}
