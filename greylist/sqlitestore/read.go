package sqlitestore

import (
	"context"
	"database/sql"
	"math"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

const (
	// fillRows is how many rows are read at once at the start. Memory takes many at
	// once faster.
	fillRows = 8000
	// walkRows is how many rows are read at once later.
	walkRows = 1000
)

// row is a row of the file.
type row struct {
	memstore.Row
	scheme int
}

// scan reads rowColumns of one row.
func scan(rows *sql.Rows) (memstore.Row, error) {
	var rowID, first, last, passed, passes, manual, scheme int64
	var id string
	err := rows.Scan(&rowID, &id, &first, &last, &passed, &passes, &manual, &scheme)
	return rowOf(rowID, id, first, last, passed, passes, manual), err
}

func rowOf(rowID int64, id string, first, last, passed, passes, manual int64) memstore.Row {
	r := memstore.Row{RowID: rowID, Entry: greylist.Entry{ID: greylist.ID(id)}}
	if r.ID.IsClient() {
		r.Client = greylist.Client{Passes: int(passes), Last: greylist.Stamp(last), Manual: manual != 0}
	} else {
		r.Triplet = greylist.Triplet{First: greylist.Stamp(first), Last: greylist.Stamp(last), Passed: greylist.Stamp(passed)}
	}
	return r
}

// The statements that read a page of rows, in the order of their rowids. Without a
// subquery for the rows, SQLite needs half of the time.
const (
	pageAfter  = "entries WHERE rowid > ?1 AND rowid <= COALESCE((SELECT rowid FROM entries WHERE rowid > ?1 ORDER BY rowid LIMIT 1 OFFSET ?2 - 1), 9223372036854775807)"
	pageBefore = "entries WHERE rowid < ?1 AND rowid >= COALESCE((SELECT rowid FROM entries WHERE rowid < ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2 - 1), -9223372036854775807)"
)

// page reads the rows before or after a rowid, at most limit.
func page(ctx context.Context, which *sql.Stmt, rowID int64, limit int) ([]row, error) {
	p, err := sqlitefile.ReadPacked(ctx, which, rowID, limit)
	if err != nil {
		return nil, err
	}
	return rowsOf(p, limit)
}

// rowsOf returns the rows of a page.
func rowsOf(p *sqlitefile.Packed, limit int) ([]row, error) {
	rows := make([]row, 0, limit)
	for p.More() {
		r := rowOf(p.Int(), p.Text(), p.Int(), p.Int(), p.Int(), p.Int(), p.Int())
		rows = append(rows, row{r, int(p.Int())})
	}
	return rows, p.Err()
}

// newestFirst visits all rows, by pages. It reads a page while the one before is visited.
func newestFirst(ctx context.Context, f *sqlitefile.File, before *sql.Stmt, visit func([]row)) error {
	reading, ctx := errgroup.WithContext(ctx)
	pages := make(chan *sqlitefile.Packed, 1)
	reading.Go(func() error {
		defer close(pages)
		first := int64(math.MaxInt64)
		for {
			p, err := sqlitefile.ReadPacked(ctx, before, first, fillRows)
			if err != nil || !p.More() {
				return err
			}
			start := *p // the rowid is the first column
			first = start.Int()
			select {
			case pages <- p:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	reading.Go(func() error {
		for p := range pages {
			rows, err := rowsOf(p, fillRows)
			if err != nil {
				return err
			}
			slices.Reverse(rows)
			visit(rows)
			f.Filled(len(rows))
		}
		return nil
	})
	return reading.Wait()
}
