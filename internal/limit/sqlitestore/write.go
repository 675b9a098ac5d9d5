package sqlitestore

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

const (
	// writeEvery is the time between two turns that write. Together with the interval
	// of the keeper, a crash loses less than a second.
	writeEvery = 600 * time.Millisecond
	// settleEvery is how often the journal is copied to the rows of the counters, which
	// costs more than all that was written to the journal. With maxJournal counters in the
	// journal, it is copied earlier.
	settleEvery = 5 * time.Minute
	maxJournal  = 1_000_000
	// batchRows is how many counters are copied, and written, at once.
	batchRows = 5000
	// purgeLooks is how many counters are looked at between two writes.
	purgeLooks = 500
)

// writer implements sqlitefile.Memory.
type writer struct {
	memory *memstore.Store
	now    func() time.Time

	urgent atomic.Bool // the next turn must write, and settle
	wrote  time.Time   // when the latest turn that wrote began

	// The journal: the counters in it that were removed, and the number of all rows.
	// The memory remembers the others.
	gone    []limit.ID
	entries int
	settled time.Time
	row     []byte // of the journal; memory to use again

	recent recent

	damage   damage // of the file that was read last
	damaged  func(rows int, first error)
	salvaged func(blocks int, err error)
}

// Fill implements sqlitefile.Memory. What is in the journal is newer than the rows.
func (w *writer) Fill(ctx context.Context, f *sqlitefile.File) error {
	w.gone, w.entries, w.damage = nil, 0, damage{}
	if _, err := w.fillBlocks(ctx, f); err != nil {
		return err
	}
	newer, err := w.fillJournal(ctx, f)
	if err == nil {
		err = w.fillCounters(ctx, f, newer)
	}
	if err == nil {
		err = w.fillRecent(ctx, f)
	}
	if err != nil {
		return err
	}
	return w.setAside(f)
}

// fillJournal adds the counters of the journal to memory, and returns which they are.
func (w *writer) fillJournal(ctx context.Context, f *sqlitefile.File) (map[limit.ID]bool, error) {
	found := make(map[limit.ID]bool)
	err := f.Each(ctx, func(rows *sql.Rows) error {
		var seq int64
		var data []byte
		if err := rows.Scan(&seq, &data); err != nil {
			return err
		}
		var bad error
		err := readJournal(data, func(r memstore.Row) error {
			if found[r.ID] { // with a newer row
				return nil
			}
			if r.Data == nil { // to be removed when the journal is settled
				w.gone = append(w.gone, r.ID)
			} else if err := w.memory.Fill(r, true); err != nil { // an older row of it counts
				bad = err
				return nil
			}
			found[r.ID] = true
			w.entries++
			f.Filled(1)
			return nil
		})
		if err = cmp.Or(err, bad); err != nil {
			w.damage.note(inJournal, seq, err)
		}
		return nil
	}, "SELECT seq, data FROM journal ORDER BY seq DESC")
	return found, err
}

// fillCounters adds the rows of the counters to memory, except for those with newer ones.
func (w *writer) fillCounters(ctx context.Context, f *sqlitefile.File, newer map[limit.ID]bool) error {
	return f.Each(ctx, func(rows *sql.Rows) error {
		f.Filled(1)
		var r memstore.Row
		var id string
		var window int64
		err := rows.Scan(&id, &r.Logins, &window, &r.Last, &r.Data)
		if r.ID = limit.ParseID(id); newer[r.ID] {
			return nil
		}
		r.Window = time.Duration(window) * time.Millisecond
		if err == nil {
			err = w.memory.Fill(r, false)
		}
		if err != nil {
			w.damage.note(inCounters, id, err)
		}
		return nil
	}, "SELECT id, logins, window, last, data FROM counters ORDER BY last DESC")
}

// fillBlocks adds the blocks of a file to memory, and returns how many there are. A block
// whose times cannot be read has no end.
func (w *writer) fillBlocks(ctx context.Context, f *sqlitefile.File) (int, error) {
	var blocks []limit.Block
	err := f.Each(ctx, func(rows *sql.Rows) error {
		var login string
		var since, until limit.Millis
		if err := rows.Scan(&login, &since, &until); err != nil {
			since, until = 0, 0
			w.damage.note(inBlocks, login, err)
		}
		blocks = append(blocks, limit.BlockOf(login, since, until))
		return nil
	}, "SELECT login, since, until FROM blocks")
	w.memory.FillBlocks(blocks)
	return len(blocks), err
}

// Lost implements sqlitefile.Memory.
func (w *writer) Lost() {
	w.urgent.Store(true)
	w.gone, w.entries = nil, 0
	w.recent.forget()
	w.memory.Rewrite()
}

// Pending implements sqlitefile.Memory.
func (w *writer) Pending() int { return w.memory.Pending() }

// Idle implements sqlitefile.Memory.
func (w *writer) Idle(*sqlitefile.File) error {
	w.memory.Purge(w.now(), purgeLooks)
	return nil
}

// Turn implements sqlitefile.Memory. It writes what had changed when it began.
func (w *writer) Turn(f *sqlitefile.File) error {
	urgent := w.urgent.Swap(false)
	if !urgent && time.Since(w.wrote) < writeEvery {
		return nil
	}
	began := time.Now()
	err := w.turn(f)
	if err == nil && (w.entries > 0 || len(w.damage.rows) > 0) && (urgent || w.entries > maxJournal || time.Since(w.settled) > settleEvery) {
		err = w.settle(f)
	}
	if err != nil {
		w.urgent.Store(true)
		return err
	}
	w.wrote = began
	return nil
}

func (w *writer) turn(f *sqlitefile.File) error {
	for range (limit.DefaultLogins+limit.DefaultStrangers)/batchRows + 1 {
		b := w.memory.TakeBatch(batchRows)
		if b.Empty() {
			return nil
		}
		if err := f.InTx(func(tx *sql.Tx) error { return w.write(tx, b) }); err != nil {
			w.memory.Failed(b)
			return err
		}
		w.note(b)
		if !b.More {
			return nil
		}
	}
	return nil
}

// write adds a batch to the journal.
func (w *writer) write(tx *sql.Tx, b *memstore.Batch) error {
	if b.Clear {
		for _, table := range []string{"counters", "journal", "transactions"} {
			if _, err := tx.Exec("DELETE FROM " + table); err != nil {
				return err
			}
		}
	}
	if len(b.Gone)+len(b.Rows) > 0 {
		w.row = appendJournal(w.row[:0], b)
		if _, err := tx.Exec("INSERT INTO journal (data) VALUES (?)", w.row); err != nil {
			return err
		}
	}
	if err := w.recent.write(tx, b); err != nil {
		return err
	}
	return storeBlocks(tx, b.Blocks)
}

// note remembers what is in the journal.
func (w *writer) note(b *memstore.Batch) {
	if b.Clear {
		w.gone, w.entries = nil, 0
	}
	w.gone = append(w.gone, b.Gone...)
	w.recent.note(b)
	w.entries += len(b.Gone) + len(b.Rows)
}

// settle copies the journal to the rows of the counters.
func (w *writer) settle(f *sqlitefile.File) error {
	err := f.InTx(func(tx *sql.Tx) error {
		if err := remove(tx, w.gone); err != nil {
			return err
		}
		for rows := range w.memory.Unsettled(batchRows) {
			if err := upsert(tx, rows); err != nil {
				return err
			}
		}
		_, err := tx.Exec("DELETE FROM journal")
		return err
	})
	if err == nil {
		w.memory.Settled()
		w.gone, w.entries, w.settled, w.damage = nil, 0, time.Now(), damage{}
	}
	return err
}

// remove deletes counters.
func remove(tx *sql.Tx, ids []limit.ID) error {
	return prepared(tx, len(ids), "DELETE FROM counters WHERE id = ?", func(i int) []any { return []any{ids[i].String()} })
}

// rowsAtOnce is how many rows one statement writes. A statement costs more than a row.
const rowsAtOnce = 50

// upsert writes counters. They are in the order of the file, so that each page is
// changed once.
func upsert(tx *sql.Tx, rows []memstore.Row) error {
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
		args = append(args, r.ID.String(), r.Logins, r.Window.Milliseconds(), r.Last, r.Data)
	}
	return args
}

// storeBlocks replaces all blocks; nil means that they have not changed.
func storeBlocks(tx *sql.Tx, blocks []limit.Block) error {
	if blocks == nil {
		return nil
	}
	if _, err := tx.Exec("DELETE FROM blocks"); err != nil {
		return err
	}
	return prepared(tx, len(blocks), "INSERT INTO blocks (login, since, until) VALUES (?,?,?)", func(i int) []any {
		since, until := blocks[i].Stored()
		return []any{blocks[i].Login, since, until}
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
