package sqlitestore

import (
	"context"
	"database/sql"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// maxRecent is the default of Options.Recent.
const maxRecent = 16 << 20

// recent are the rows of the table of transactions, the oldest first.
type recent struct {
	rows   []recentRow
	octets int
	latest int64 // the number of the latest row
	most   int   // octets
}

// forget notes that the file has no rows.
func (r *recent) forget() { *r = recent{most: r.most} }

type recentRow struct {
	seq    int64
	octets int
	ends   limit.Millis
}

// old returns how many rows are not needed when a batch is written.
func (r *recent) old(b *memstore.Batch) int {
	now := b.Until - limit.HoldFor.Milliseconds()
	octets := r.octets + len(b.Transactions)
	for i, row := range r.rows {
		if row.ends > now && octets <= r.most {
			return i
		}
		octets -= row.octets
	}
	return len(r.rows)
}

// write adds the transactions of a batch, and removes rows that are not needed.
func (r *recent) write(tx *sql.Tx, b *memstore.Batch) error {
	if len(b.Transactions) == 0 {
		return nil
	}
	if n := r.old(b); n > 0 {
		if _, err := tx.Exec("DELETE FROM transactions WHERE seq <= ?", r.rows[n-1].seq); err != nil {
			return err
		}
	}
	_, err := tx.Exec("INSERT INTO transactions (seq, ends, data) VALUES (?,?,?)", r.latest+1, b.Until, b.Transactions)
	return err
}

// note remembers what is in the file, after a batch was written.
func (r *recent) note(b *memstore.Batch) {
	if b.Clear {
		r.rows, r.octets = nil, 0
	}
	if len(b.Transactions) == 0 {
		return
	}
	n := r.old(b)
	for _, row := range r.rows[:n] {
		r.octets -= row.octets
	}
	r.latest++
	r.rows = append(r.rows[n:], recentRow{r.latest, len(b.Transactions), b.Until})
	r.octets += len(b.Transactions)
}

// fillRecent adds the transactions of the file to memory. The file keeps the rows that
// can be read.
func (w *writer) fillRecent(ctx context.Context, f *sqlitefile.File) error {
	var rows []recentRow
	var batches [][]byte
	w.recent.forget()
	err := f.Each(ctx, func(r *sql.Rows) error {
		var row recentRow
		var data []byte
		err := r.Scan(&row.seq, &row.ends, &data)
		w.recent.latest = row.seq
		if err != nil {
			w.damage.note(inTransactions, row.seq, err)
			return nil
		}
		row.octets = len(data)
		rows = append(rows, row)
		batches = append(batches, data)
		return nil
	}, "SELECT seq, ends, data FROM transactions ORDER BY seq")
	if err != nil {
		return err
	}
	for i, err := range w.memory.FillTransactions(batches, w.now()) {
		if err != nil {
			w.damage.note(inTransactions, rows[i].seq, err)
			continue
		}
		w.recent.rows = append(w.recent.rows, rows[i])
		w.recent.octets += rows[i].octets
	}
	return nil
}
