package migrate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// magic is how a SQLite file begins.
const magic = "SQLite format 3\x00"

// SqlgreyFile reads a SQL dump as Sqlgrey does, or sqlgrey's SQLite database
// itself.
func SqlgreyFile(ctx context.Context, f *os.File, loc *time.Location, yield func(Entry) error) (Summary, error) {
	start := make([]byte, len(magic))
	if _, err := io.ReadFull(f, start); err == nil && string(start) == magic {
		return sqlgreyDatabase(ctx, f.Name(), loc, yield)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return Summary{}, err
	}
	return Sqlgrey(f, loc, yield)
}

func sqlgreyDatabase(ctx context.Context, path string, loc *time.Location, yield func(Entry) error) (_ Summary, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return Summary{}, err
	}
	db, err := sql.Open("sqlite", "file://"+(&url.URL{Path: abs}).EscapedPath()+"?mode=ro&_pragma=query_only(1)&_pragma=busy_timeout(5000)")
	if err != nil {
		return Summary{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	s := sqlgrey{loc: loc, yield: yield}
	for _, table := range []string{"connect", "from_awl", "domain_awl"} {
		var there int
		if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table' AND name = ?", table).Scan(&there); err != nil {
			return s.result, err
		}
		if there == 0 {
			continue
		}
		s.found, s.table, s.line = true, table, 0
		if err := s.readTable(ctx, db, table); err != nil {
			return s.result, fmt.Errorf("table %s: %w", table, err)
		}
	}
	if !s.found {
		return s.result, errNoTables
	}
	return s.result, nil
}

// readTable reads all rows. Without the casts, the driver would read times without
// a zone as UTC.
func (s *sqlgrey) readTable(ctx context.Context, db *sql.DB, table string) (err error) {
	names := columns[table]
	casts := slices.Clone(names)
	for i, name := range names {
		casts[i] = "COALESCE(CAST(" + name + " AS TEXT), '')"
	}
	rows, err := db.QueryContext(ctx, "SELECT "+strings.Join(casts, ", ")+" FROM "+table)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		s.line++
		values := make([]string, len(names))
		into := make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		for i, v := range values {
			values[i] = strings.ToValidUTF8(v, "\uFFFD")
		}
		if err := s.row(table, names, values); err != nil {
			return err
		}
	}
	return rows.Err()
}
