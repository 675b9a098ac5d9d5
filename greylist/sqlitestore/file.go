package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// schemaVersion is the file's user_version. Version 1 had an index by a hash of
// the ID.
const schemaVersion = 2

const schema = `
CREATE TABLE IF NOT EXISTS entries (
	rowid  INTEGER PRIMARY KEY,
	id     TEXT NOT NULL,    -- "client sender recipient", or a client
	first  INTEGER NOT NULL, -- times in milliseconds since 1970, 0 for never
	last   INTEGER NOT NULL,
	passed INTEGER NOT NULL,
	passes INTEGER NOT NULL, -- of a client
	manual INTEGER NOT NULL
);
`

const fromVersion1 = "DROP INDEX IF EXISTS entries_hash; ALTER TABLE entries DROP COLUMN hash;"

// rowColumns is what insert writes and scan reads.
const rowColumns = "rowid, id, first, last, passed, passes, manual"

const (
	// Nothing is sorted or put aside on disk but the log.
	pragmas = "_pragma=busy_timeout(2000)&_pragma=synchronous(NORMAL)&_pragma=cache_size(-16384)&_pragma=temp_store(MEMORY)"
	// The write-ahead log is worked into the file when it has 8192 pages of
	// 4096 octets: pages of the index change again and again, and are written to
	// their place once. What a burst has made of the log beyond 64 MiB is cut off.
	writerPragmas = "&_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=journal_size_limit(67108864)&_pragma=wal_autocheckpoint(8192)"
	readerPragmas = "&_pragma=query_only(1)"
	readers       = 4
)

// file is an open database that belongs to this process alone.
type file struct {
	path    string
	lock    *os.File
	writer  *sql.DB // one connection
	reader  *sql.DB
	lookup  *sql.Stmt
	nextRow int64
}

// errCorrupt marks a file that SQLite cannot read.
var errCorrupt = errors.New("not a usable greylist database")

// openFile opens, or makes, a database. A corrupt one wraps errCorrupt.
func openFile(ctx context.Context, path string) (*file, error) {
	lock, err := lockFile(path)
	if err != nil {
		return nil, err
	}
	f := &file{path: path, lock: lock}
	if err := f.open(ctx); err != nil {
		return nil, errors.Join(explain(path, err), f.close())
	}
	return f, nil
}

// lockFile takes the file for this process. The lock ends with the process,
// so that none is left behind, and its descriptor must be the last of this
// file to be closed: SQLite's own locks would end with any.
func lockFile(path string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o640)
	if err != nil {
		return nil, fmt.Errorf("greylist store: %w: the daemon's user must be able to write this file and its directory", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.New("another process uses it: several hosts or daemons share a greylist through Redis")
		}
		return nil, errors.Join(fmt.Errorf("greylist store %s: %w", path, err), lock.Close())
	}
	return lock, nil
}

func (f *file) open(ctx context.Context) error {
	abs, err := filepath.Abs(f.path)
	if err != nil {
		return err
	}
	dsn := "file://" + (&url.URL{Path: abs}).EscapedPath() + "?" + pragmas
	if f.writer, err = sql.Open("sqlite", dsn+writerPragmas); err != nil {
		return err
	}
	f.writer.SetMaxOpenConns(1)
	if err := f.prepare(ctx); err != nil {
		return err
	}
	if f.reader, err = sql.Open("sqlite", dsn+readerPragmas); err != nil {
		return err
	}
	f.reader.SetMaxOpenConns(readers)
	f.reader.SetMaxIdleConns(readers)
	f.lookup, err = f.reader.PrepareContext(ctx, "SELECT "+rowColumns+" FROM entries WHERE rowid = ?")
	return err
}

// prepare checks the file and makes the schema.
func (f *file) prepare(ctx context.Context) error {
	var verdict string
	if err := f.writer.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", errCorrupt, verdict)
	}
	var version int
	if err := f.writer.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > schemaVersion {
		return fmt.Errorf("its version is %d, this release knows %d: it was written by a newer release", version, schemaVersion)
	}
	statements := schema
	if version == 1 {
		statements = fromVersion1
	}
	// In any case, so that a file or a disk that cannot be written is found now.
	if _, err := f.writer.ExecContext(ctx, "BEGIN IMMEDIATE;"+statements+"PRAGMA user_version = "+strconv.Itoa(schemaVersion)+";COMMIT"); err != nil {
		return err
	}
	return f.writer.QueryRowContext(ctx, "SELECT COALESCE(MAX(rowid), 0) + 1 FROM entries").Scan(&f.nextRow)
}

func (f *file) close() error {
	var errs []error
	if f.lookup != nil {
		errs = append(errs, f.lookup.Close())
	}
	if f.reader != nil {
		errs = append(errs, f.reader.Close())
	}
	if f.writer != nil {
		errs = append(errs, f.writer.Close())
	}
	return errors.Join(append(errs, f.lock.Close())...)
}

// explain adds what an administrator can do.
func explain(path string, err error) error {
	mend := ""
	switch code(err) {
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		mend = ": the daemon's user must be able to write this file and its directory"
	case sqlite3.SQLITE_FULL:
		mend = ": the disk is full"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		err = fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return fmt.Errorf("greylist store %s: %w%s", path, err, mend)
}

// code is SQLite's primary result code, 0 if err is none of its errors.
func code(err error) int {
	if e := (*sqlite.Error)(nil); errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}

func isCorrupt(err error) bool {
	c := code(err)
	return errors.Is(err, errCorrupt) || c == sqlite3.SQLITE_CORRUPT || c == sqlite3.SQLITE_NOTADB
}

// setAside renames a corrupt file and what belongs to it, and returns the name.
func setAside(path string, now time.Time) (string, error) {
	base := path + ".corrupt-" + now.UTC().Format("20060102T150405Z")
	aside := base
	for n := 2; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, os.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
		aside = base + "-" + strconv.Itoa(n)
	}
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	for _, part := range []string{"-wal", "-shm"} {
		if err := os.Rename(path+part, aside+part); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return aside, nil
}
