// SQLite: tables in an SQLite file.
//
// The table file is sqlite_table(5)'s: dbpath, query, result_format, domain and
// expansion_limit. The first column of every row is a value, as in Postfix.
//
// The file is opened read-only, and no file is written beside it. In WAL mode, SQLite
// needs an index file (-shm) even for reading. If it is missing, because there is no
// writer, the database is opened as immutable, which needs no other file. Then it must
// not change, and this is checked: a connection is used only while the database, its
// log and its journal are as they were when it was opened. If they change during a
// read, the read is repeated.
//
// Invariants:
//   - no file is created, locked for writing or changed;
//   - an answer is what the database had at one moment between question and answer.

package sql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"modernc.org/sqlite"

	"github.com/postern-mail/postern/internal/postmap/conf"
	"github.com/postern-mail/postern/internal/postmap/remote"
)

const (
	// busyTimeout is how long a lock of a writer is waited for.
	busyTimeout = time.Second
	// sqliteLifetime lets an answer come from a file that was moved into place.
	sqliteLifetime = time.Minute
	// rereads is how often a read is tried again that a writer came into.
	rereads = 5
)

// readSQLite reads what only this dialect has: the path of the database. That it is
// there and readable is checked here; it is opened by the first question.
func readSQLite(c *conf.Conf, q Query) (*backend, error) {
	db := database{path: c.String("dbpath", ""), statement: q.Text, parameters: len(q.Args)}
	if err := db.check(c); err != nil {
		return nil, err
	}
	if err := db.compiles(); err != nil {
		return nil, c.Error("query", err.Error(), "correct the query, or the tables of the database")
	}
	return &backend{
		hosts: []remote.Host[session]{{Name: db.path, Dial: db.dial}},
		idle:  sqliteLifetime, lifetime: sqliteLifetime,
	}, nil
}

// database is one SQLite file.
type database struct {
	path, statement string
	parameters      int // of the statement
}

// check finds what an operator must fix before any question is asked.
func (db database) check(c *conf.Conf) error {
	if db.path == "" {
		return c.Error("dbpath", "is missing", "write: dbpath = /path/to/the/file.sqlite")
	}
	if !filepath.IsAbs(db.path) {
		return c.Error("dbpath", "is a relative path, which would begin at Postfix's queue directory there and nowhere here", "write the whole path")
	}
	info, err := os.Stat(db.path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("is no regular file")
	}
	if err == nil {
		_, err = readHeader(db.path)
	}
	if err != nil {
		return c.Wrap("dbpath", err, "let the daemon's user or one of its groups read the file and pass through every folder above it")
	}
	return nil
}

// header is the beginning of a database file.
const (
	headerSize  = 20
	headerMagic = "SQLite format 3\x00"
	walVersion  = 2 // of the format, at octet 19
)

func readHeader(path string) (isWAL bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	header := make([]byte, headerSize)
	n, err := io.ReadFull(file, header)
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		return false, nil // an empty file is an empty database
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return false, err
	case n < headerSize || string(header[:len(headerMagic)]) != headerMagic:
		return false, errors.New("is no SQLite database")
	}
	return header[19] == walVersion, nil
}

func (db database) dial(ctx context.Context) (session, error) {
	c, err := db.open(ctx)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// open makes a connection that creates no file.
func (db database) open(ctx context.Context) (*sqliteConn, error) {
	before, err := db.state()
	if err != nil {
		return nil, err
	}
	isWAL, err := readHeader(db.path)
	if err != nil {
		return nil, err
	}
	// With a log there is a writer, or was one. The index then shows which part of
	// the log is valid, and SQLite reads it without the right to write. Without an
	// index SQLite would make one.
	immutable := isWAL && before[1].size == 0
	if isWAL && !immutable {
		if _, err := os.Stat(db.path + "-shm"); err != nil {
			return nil, fmt.Errorf("%s-wal was left behind by a writer that has crashed: let that program, or sqlite3 as its user, open the database once: %w", db.path, err)
		}
	}
	raw, err := new(sqlite.Driver).Open(dsn(db.path, immutable))
	if err != nil {
		return nil, err
	}
	return db.prepare(ctx, raw, before, immutable)
}

func (db database) prepare(ctx context.Context, raw driver.Conn, before sqliteState, immutable bool) (*sqliteConn, error) {
	prepared, err := prepareOn(ctx, raw, db.asText(ctx, raw))
	if err != nil {
		return nil, err
	}
	return &sqliteConn{driverConn: prepared, db: db, opened: before, immutable: immutable}, nil
}

// compiles finds a query that the database does not understand. A database that
// cannot be asked now is no error here.
func (db database) compiles() error {
	ctx, cancel := context.WithTimeout(context.Background(), busyTimeout)
	defer cancel()
	c, err := db.open(ctx)
	if err == nil {
		err = db.explain(ctx, c.conn, db.statement)
		c.Close()
	}
	var refused *sqlite.Error
	if errors.As(err, &refused) && refused.Code() == sqliteError {
		return refused
	}
	return nil
}

// sqliteError is SQLITE_ERROR, which SQLite returns for a wrong statement.
const sqliteError = 1

// maxColumns is the most columns of a query whose values are spelled by SQLite.
const maxColumns = 100

// asText returns the statement with its first column as text, so that dates stay as
// they are stored and numbers are spelled as in SQLite's own interface, with 15
// digits; the driver would spell both as Go does. A statement that cannot be a sub-query is returned as it is.
func (db database) asText(ctx context.Context, raw driver.Conn) string {
	for columns := 1; columns > 0 && columns <= maxColumns; {
		names := make([]string, columns)
		for i := range names {
			names[i] = fmt.Sprintf("v%d", i)
		}
		text := fmt.Sprintf("WITH postern_answer(%s) AS (%s\n) SELECT CASE typeof(v0) WHEN 'real' THEN printf('%%!.15g', v0) ELSE CAST(v0 AS TEXT) END FROM postern_answer", strings.Join(names, ", "), db.statement)
		err := db.explain(ctx, raw, text)
		if err == nil {
			return text
		}
		more := columnsOf(err)
		if more == columns {
			break
		}
		columns = more
	}
	return db.statement
}

// explain compiles a statement without running it.
func (db database) explain(ctx context.Context, raw driver.Conn, text string) error {
	explained, err := prepareConn(ctx, raw, "EXPLAIN "+text)
	if err != nil {
		return err
	}
	defer func() { _ = explained.stmt.Close() }() // nothing was written that could be lost
	_, err = explained.Query(ctx, make([]string, db.parameters), expected{FirstColumn: true})
	return err
}

// columnsOf reads how many columns a query has from the error about a wrong number
// of names, 0 from any other error.
func columnsOf(err error) int {
	var columns, names int
	_, text, _ := strings.Cut(err.Error(), "postern_answer has ")
	if n, _ := fmt.Sscanf(text, "%d values for %d columns", &columns, &names); n < 2 {
		return 0
	}
	return columns
}

func dsn(path string, immutable bool) string {
	query := url.Values{"mode": {"ro"}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "query_only(1)", "trusted_schema(0)",
	}}
	if immutable {
		query.Set("immutable", "1")
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String()
}

// sqliteState shows whether a database has changed: the states of the file, its log and
// its journal.
type sqliteState [3]fileState

type fileState struct {
	size  int64
	mtime time.Time
	inode os.FileInfo // for os.SameFile
}

func (db database) state() (sqliteState, error) {
	var s sqliteState
	for i, suffix := range []string{"", "-wal", "-journal"} {
		info, err := os.Stat(db.path + suffix)
		if errors.Is(err, fs.ErrNotExist) && i > 0 {
			continue
		}
		if err != nil {
			return sqliteState{}, err
		}
		s[i] = fileState{info.Size(), info.ModTime(), info}
	}
	return s, nil
}

func (s sqliteState) same(other sqliteState) bool {
	return slices.EqualFunc(s[:], other[:], func(a, b fileState) bool {
		if a.inode == nil || b.inode == nil {
			return a.inode == nil && b.inode == nil
		}
		return a.size == b.size && a.mtime.Equal(b.mtime) && os.SameFile(a.inode, b.inode)
	})
}

// sqliteConn is a connection and what the files were like when it was opened.
type sqliteConn struct {
	*driverConn
	db        database
	opened    sqliteState
	immutable bool
}

// lookUp returns the values of one question.
func (c *sqliteConn) lookUp(ctx context.Context, args []string) ([]string, error) {
	for range rereads {
		now, err := c.db.state()
		if err != nil {
			return nil, err
		}
		if c.stale(now) {
			if err := c.reopen(ctx); err != nil {
				return nil, err
			}
			continue
		}
		values, err := c.Query(ctx, args, expected{FirstColumn: true})
		if !c.immutable {
			return values, err
		}
		if after, stateErr := c.db.state(); stateErr == nil && after.same(now) {
			return values, err
		}
	}
	return nil, errors.New("the database changed while it was read, again and again")
}

// stale reports whether a connection must not be used any more: an immutable one
// when anything has changed, any when another file has taken the place.
func (c *sqliteConn) stale(now sqliteState) bool {
	if c.immutable {
		return !now.same(c.opened)
	}
	return !os.SameFile(now[0].inode, c.opened[0].inode)
}

func (c *sqliteConn) reopen(ctx context.Context) error {
	fresh, err := c.db.open(ctx)
	if err != nil {
		return err
	}
	c.driverConn.Close()
	*c = *fresh
	return nil
}
