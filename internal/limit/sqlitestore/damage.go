package sqlitestore

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// A row that cannot be read loses its own counts only. It is copied to the table
// unreadable, for a person, and does not stop the start.

// The tables with rows that can be unreadable.
const (
	inBlocks       = "blocks"
	inCounters     = "counters"
	inJournal      = "journal"
	inTransactions = "transactions"
)

// repairs is how the rows of a table are copied and then repaired. The key of the row is
// the only argument of both.
var repairs = map[string]struct{ copy, repair string }{
	inBlocks: { // whoever has set the block relies on it
		"SELECT login, since || ' ' || until FROM blocks WHERE login = ?",
		"UPDATE blocks SET since = 0, until = 0 WHERE login = ?"},
	inCounters:     {"SELECT id, data FROM counters WHERE id = ?", "DELETE FROM counters WHERE id = ?"},
	inJournal:      {"SELECT seq, data FROM journal WHERE seq = ?", ""}, // the next turn settles the journal
	inTransactions: {"SELECT seq, data FROM transactions WHERE seq = ?", "DELETE FROM transactions WHERE seq = ?"},
}

// maxUnreadable bounds the rows in the table unreadable.
const maxUnreadable = 10_000

// damage are the rows of a file that cannot be read.
type damage struct {
	rows  []badRow
	first error
}

type badRow struct {
	table string
	key   any
}

func (d *damage) note(table string, key any, err error) {
	if len(d.rows) == 0 {
		d.first = fmt.Errorf("table %s, %v: %w", table, key, err)
	}
	d.rows = append(d.rows, badRow{table, key})
}

// setAside copies and repairs the rows that could not be read, and reports them.
func (w *writer) setAside(f *sqlitefile.File) error {
	if len(w.damage.rows) == 0 {
		return nil
	}
	if err := f.InTx(w.damage.setAside); err != nil {
		return err
	}
	w.urgent.Store(true)
	if w.damaged != nil {
		w.damaged(len(w.damage.rows), w.damage.first)
	}
	return nil
}

func (d *damage) setAside(tx *sql.Tx) error {
	for i, row := range d.rows {
		r := repairs[row.table]
		if i < maxUnreadable {
			if _, err := tx.Exec("INSERT INTO unreadable (source, name, data) SELECT '"+row.table+"', * FROM ("+r.copy+")", row.key); err != nil {
				return err
			}
		}
		if r.repair == "" {
			continue
		}
		if _, err := tx.Exec(r.repair, row.key); err != nil {
			return err
		}
	}
	_, err := tx.Exec("DELETE FROM unreadable WHERE seq <= (SELECT max(seq) FROM unreadable) - ?", maxUnreadable)
	return err
}

// Salvage implements sqlitefile.Salvager. The blocks are kept, because a person has set
// them and relies on them. Counts are not: they would be wrong.
func (w *writer) Salvage(ctx context.Context, f *sqlitefile.File) {
	n, err := w.fillBlocks(ctx, f)
	w.damage = damage{} // it is about a file that is renamed
	w.Lost()            // so that the blocks are written to the next file
	if w.salvaged != nil {
		w.salvaged(n, err)
	}
}
