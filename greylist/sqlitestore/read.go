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
	// fillRows is how many rows a page has at the start. Memory takes many at once faster.
	fillRows = 8000
	// fillAtOnce is how many pages are read at the same time then. Reading a row takes
	// twice the time that memory needs for it.
	fillAtOnce = 2
	// walkRows is how many rows a page has later.
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

// The statements that read a page of rows, in the order of their rowids: those after a
// rowid, and those of a span. spanStart finds where the span that ends at a rowid starts.
// Without a subquery for the rows, SQLite needs half of the time.
const (
	pageAfter = "entries WHERE rowid > ?1 AND rowid <= COALESCE((SELECT rowid FROM entries WHERE rowid > ?1 ORDER BY rowid LIMIT 1 OFFSET ?2 - 1), 9223372036854775807)"
	spanStart = "SELECT COALESCE((SELECT rowid FROM entries WHERE rowid <= ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2 - 1), -9223372036854775808)"
	spanRows  = "entries WHERE rowid BETWEEN ?1 AND ?2"
)

// page reads the rows after a rowid, at most limit.
func page(ctx context.Context, after *sql.Stmt, rowID int64, limit int) ([]row, error) {
	p, err := sqlitefile.ReadPacked(ctx, after, rowID, limit)
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

// span is a page of the file: the rows from first to last, which are sent to rows.
type span struct {
	first, last int64
	rows        chan *sqlitefile.Packed
}

// newestFirst visits all rows, by pages. It reads the next pages, fillAtOnce at the same
// time, while one is visited.
func newestFirst(ctx context.Context, f *sqlitefile.File, start, rows *sql.Stmt, visit func([]row)) error {
	work, ctx := errgroup.WithContext(ctx)
	toRead, toVisit := make(chan span), make(chan span, fillAtOnce)
	work.Go(func() error {
		defer close(toVisit)
		defer close(toRead)
		return spans(ctx, start, toVisit, toRead)
	})
	for range fillAtOnce {
		work.Go(func() error {
			for s := range toRead {
				p, err := sqlitefile.ReadPacked(ctx, rows, s.first, s.last)
				if err != nil {
					return err
				}
				s.rows <- p
			}
			return nil
		})
	}
	work.Go(func() error {
		for s := range toVisit {
			select {
			case p := <-s.rows:
				rows, err := rowsOf(p, fillRows)
				if err != nil {
					return err
				}
				slices.Reverse(rows)
				visit(rows)
				f.Filled(len(rows))
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return work.Wait()
}

// spans sends the pages of the file to each channel, the newest first.
func spans(ctx context.Context, start *sql.Stmt, to ...chan<- span) error {
	s := span{first: math.MaxInt64}
	for s.first != math.MinInt64 {
		s = span{last: s.first - 1, rows: make(chan *sqlitefile.Packed, 1)}
		if err := start.QueryRowContext(ctx, s.last, fillRows).Scan(&s.first); err != nil {
			return err
		}
		for _, next := range to {
			select {
			case next <- s:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}
