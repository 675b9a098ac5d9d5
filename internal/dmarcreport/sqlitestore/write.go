package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// purgeRows is how many rows are removed between two writes.
const purgeRows = 5000

// writer implements sqlitefile.Memory.
type writer struct{ *Store }

// Fill implements sqlitefile.Memory. Notes in memory are newer than those in the file.
func (w writer) Fill(ctx context.Context, f *sqlitefile.File) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := f.Each(ctx, func(rows *sql.Rows) error {
		var name string
		var n note
		if err := rows.Scan(&name, &n.text, &n.until); err != nil {
			return err
		}
		if _, known := w.notes[name]; !known && !w.dirty[name] {
			w.notes[name] = n
		}
		return nil
	}, "SELECT name, text, until FROM notes")
	w.filled = w.filled || err == nil
	return err
}

// Lost implements sqlitefile.Memory. The rows of the file are lost. The notes are
// written again.
func (w writer) Lost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.notes {
		w.dirty[name] = true
	}
	clear(w.days)
}

// Pending implements sqlitefile.Memory.
func (w writer) Pending() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting + len(w.dirty)
}

// Turn implements sqlitefile.Memory.
func (w writer) Turn(f *sqlitefile.File) error {
	w.mu.Lock()
	batches := slices.Clone(w.pending)
	changed := make(map[string]note, len(w.dirty))
	for name := range w.dirty {
		changed[name] = w.notes[name]
	}
	w.mu.Unlock()
	if len(batches)+len(changed) == 0 {
		return nil
	}
	var lost int64
	before := maps.Clone(w.days)
	err := f.InTx(func(tx *sql.Tx) error {
		for _, b := range batches {
			n, err := w.count(tx, b)
			if err != nil {
				return err
			}
			lost += n
		}
		return writeNotes(tx, changed)
	})
	if err != nil {
		w.days = before
		return err
	}
	w.written(batches, changed, lost)
	return nil
}

// written forgets pending changes that are in the file now.
func (w writer) written(batches []*dmarcreport.Batch, changed map[string]note, lost int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = slices.Delete(w.pending, 0, len(batches))
	for _, b := range batches {
		w.waiting -= len(b.Rows)
	}
	for name, n := range changed {
		if w.notes[name] == n {
			delete(w.dirty, name)
		}
	}
	w.lost += lost
}

func writeNotes(tx *sql.Tx, changed map[string]note) error {
	for name, n := range changed {
		var err error
		if n.text == "" {
			_, err = tx.Exec("DELETE FROM notes WHERE name = ?", name)
		} else {
			_, err = tx.Exec("INSERT INTO notes VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET text = excluded.text, until = excluded.until", name, n.text, n.until)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// count adds a batch to the rows and returns how many messages had no room.
func (w writer) count(tx *sql.Tx, b *dmarcreport.Batch) (lost int64, err error) {
	day, err := w.countOf(tx, b.Day)
	if err != nil {
		return 0, err
	}
	id, err := w.report(tx, b, &day)
	if err != nil {
		return 0, err
	}
	for _, r := range b.Rows {
		if id == 0 {
			lost += r.Count
			continue
		}
		found, err := changes(tx.Exec("UPDATE rows SET count = count + ? WHERE report = ? AND row = ?", r.Count, id, r.Row))
		if err != nil {
			return 0, err
		}
		switch {
		case found > 0:
		case day.rows >= dmarcreport.MaxRows:
			lost += r.Count
		default:
			if _, err := tx.Exec("INSERT INTO rows VALUES (?, ?, ?, ?)", id, r.Row, r.Count, r.Plain); err != nil {
				return 0, err
			}
			day.rows++
		}
	}
	w.days[b.Day] = day
	return lost, nil
}

// countOf returns what a day has. It reads the file only the first time.
func (w writer) countOf(tx *sql.Tx, day dmarcreport.Day) (dayCount, error) {
	c, known := w.days[day]
	if known {
		return c, nil
	}
	err := tx.QueryRow("SELECT COUNT(report), COUNT(DISTINCT id) FROM reports LEFT JOIN rows ON report = id WHERE day = ?", day).Scan(&c.rows, &c.domains)
	return c, err
}

func changes(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// report returns the number of the report of a batch, or 0 if there is no room for
// another report. It also updates the policy to the latest, and the beginning of the
// report to the earliest.
func (w writer) report(tx *sql.Tx, b *dmarcreport.Batch, day *dayCount) (id int64, err error) {
	if id, err = w.current(tx, b, day); err != nil || id == 0 || b.Since == 0 {
		return id, err
	}
	_, err = tx.Exec("INSERT INTO late VALUES (?, ?) ON CONFLICT (report) DO UPDATE SET since = min(since, excluded.since)", id, b.Since)
	return id, err
}

func (w writer) current(tx *sql.Tx, b *dmarcreport.Batch, day *dayCount) (id int64, err error) {
	policy, err := json.Marshal(b.Policy)
	if err != nil {
		return 0, err
	}
	err = tx.QueryRow("UPDATE reports SET policy = CASE WHEN ? THEN policy ELSE ? END WHERE day = ? AND domain = ? RETURNING id",
		b.Since != 0, string(policy), b.Day, b.Domain).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	if day.domains >= dmarcreport.MaxDomains {
		return 0, nil
	}
	day.domains++
	r, err := tx.Exec("INSERT INTO reports (day, domain, policy) VALUES (?, ?, ?)", b.Day, b.Domain, string(policy))
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// Idle implements sqlitefile.Memory. It executes purges in steps.
func (w writer) Idle(f *sqlitefile.File) error {
	w.mu.Lock()
	before := w.purging
	w.mu.Unlock()
	if before == 0 {
		return nil
	}
	gone, err := changes(f.Writer.Exec("DELETE FROM rows WHERE (report, row) IN (SELECT report, row FROM rows WHERE report IN (SELECT id FROM reports WHERE day < ?) LIMIT ?)", before, purgeRows))
	if err != nil || gone == purgeRows {
		return err
	}
	if _, err := f.Writer.Exec("DELETE FROM late WHERE report IN (SELECT id FROM reports WHERE day < ?1); DELETE FROM reports WHERE day < ?1", before); err != nil {
		return err
	}
	maps.DeleteFunc(w.days, func(day dmarcreport.Day, _ dayCount) bool { return day < before })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.purging == before {
		w.purging = 0
	}
	return nil
}
