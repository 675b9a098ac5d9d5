package sqlitefile

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/postern-mail/postern/internal/transient"
)

// Schema describes a file of ours.
type Schema struct {
	Name    string // of the store, for errors, such as "greylist"
	ID      uint32 // PRAGMA application_id
	Version int    // PRAGMA user_version
	Create  string // makes the tables where they are missing
	// Migrate has the statements that convert a file of an older version to this
	// one. They run before Create.
	Migrate map[int]string
	// Tables are the tables of a file that was made before there was an ID. A file
	// that has a version, and no other tables, is ours.
	Tables []string
	// Shared means that programs write the file now and then (Update), and that
	// programs without the right to write read it meanwhile (Look). Such a file has a
	// rollback journal, because a reader must be able to write to a write-ahead log.
	Shared bool
}

const (
	// Nothing is written to disk except the file and its log: sorting uses memory.
	pragmas = "_pragma=busy_timeout(2000)&_pragma=synchronous(NORMAL)&_pragma=temp_store(MEMORY)"
	// The write-ahead log is moved to the file when it has 1000 pages of 4096 octets. A
	// page that changes often would be written to its place less often with a longer log,
	// but moving that takes some 300 ms, in which requests wait. A log that has grown
	// beyond 64 MiB is truncated. The cache takes twice its size in memory: the allocator
	// has no place between 4 and 8 KiB for a page.
	writerPragmas = "&_pragma=cache_size(-8192)&_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=journal_size_limit(67108864)&_pragma=wal_autocheckpoint(1000)"
	sharedPragmas = "&_pragma=cache_size(-16384)&_txlock=immediate&_pragma=journal_mode(DELETE)"
	// A reader reads a row, or pages in their order. The kernel has the pages in memory.
	readerPragmas = "&_pragma=cache_size(-512)&_pragma=query_only(1)"
	readers       = 4
)

// File is an open database that belongs to this process alone.
type File struct {
	Writer *sql.DB // one connection
	Reader *sql.DB

	path       string
	schema     Schema
	lock       *os.File
	statements []*sql.Stmt
	note       func(rows int) // is called for every readingStep rows; may be nil
	read       int            // rows since then
	isIntact   bool           // nothing has written to it since the end of its last owner
	isRead     bool           // memory has been filled from it
	seen       sight          // as it was left by the last write
}

// ErrForeign marks the database of another program.
var ErrForeign = errors.New("it is the database of another program")

// errInUse is the error for a file that has another owner.
var errInUse = transient.Mark(errors.New("another process uses it, or another store of this one; several hosts or daemons share a store through Redis"))

// errCorrupt marks a file that SQLite cannot read.
var errCorrupt = errors.New("not a usable database")

// Each calls row for every row of a query.
func (f *File) Each(ctx context.Context, row func(*sql.Rows) error, query string, args ...any) error {
	return each(ctx, f.Reader, row, query, args...)
}

// Filled counts rows that Memory.Fill has read. A start that takes long shows in this
// way that it goes on.
func (f *File) Filled(rows int) {
	if f.read += rows; f.read >= readingStep && f.note != nil {
		f.note(f.read)
		f.read = 0
	}
}

func each(ctx context.Context, db *sql.DB, row func(*sql.Rows) error, query string, args ...any) (err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// InTx runs do in one transaction of the writer. If do fails, nothing is written.
func (f *File) InTx(do func(*sql.Tx) error) error {
	tx, err := f.Writer.Begin()
	if err != nil {
		return err
	}
	if err = do(tx); err == nil {
		err = tx.Commit()
	}
	if err == nil {
		return nil
	}
	if undo := tx.Rollback(); !errors.Is(undo, sql.ErrTxDone) {
		err = errors.Join(err, undo)
	}
	return err
}

// openFile opens or creates a database. The error for a corrupt one wraps errCorrupt.
// read, which may be nil, reads a database of this version while it is checked.
func openFile(ctx context.Context, schema Schema, path string, note func(rows int), read func(context.Context, *File) error) (*File, error) {
	f := &File{path: path, schema: schema, note: note}
	var err error
	if f.lock, err = f.lockFile(); err != nil {
		return nil, err
	}
	f.isIntact = f.takeMark()
	if err := f.open(ctx, read); err != nil {
		return nil, errors.Join(f.explain(err), f.close())
	}
	return f, nil
}

// lockFile locks the file for this process. The lock ends with the process, so none
// is left behind. Its descriptor must be the last one of this file to be closed,
// because closing any descriptor would end SQLite's own locks.
func (f *File) lockFile() (*os.File, error) {
	path, err := target(f.path)
	if err != nil {
		return nil, fmt.Errorf("%s store: %w", f.schema.Name, err)
	}
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0o640)
	if err != nil {
		return nil, fmt.Errorf("%s store: %w: the daemon's user must be able to write this file and its directory", f.schema.Name, err)
	}
	if err := own(lock, f.path); err != nil {
		return nil, errors.Join(fmt.Errorf("%s store %s: %w", f.schema.Name, f.path, err), lock.Close())
	}
	return lock, nil
}

func own(lock *os.File, path string) error {
	info, err := lock.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return errors.New("it is no regular file")
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			// At a restart it may be the process before us, which is about to end.
			return errInUse
		}
		return err
	}
	if now, err := os.Stat(path); err != nil || !os.SameFile(info, now) {
		return transient.Mark(errors.New("it was replaced while it was opened"))
	}
	return nil
}

func (f *File) open(ctx context.Context, read func(context.Context, *File) error) error {
	if err := registerPack(); err != nil {
		return err
	}
	dsn, err := dsn(f.path)
	if err != nil {
		return err
	}
	version, err := f.identify(ctx, dsn)
	if err != nil {
		return err
	}
	if f.Writer, err = sql.Open("sqlite", dsn+pragmas+f.schema.writerPragmas()); err != nil {
		return err
	}
	f.Writer.SetMaxOpenConns(1)
	if err := f.openReader(); err != nil {
		return err
	}
	if read == nil || version != f.schema.Version {
		err = f.check(ctx)
	} else {
		err = f.checkAndRead(ctx, read)
	}
	if err != nil {
		return err
	}
	return f.prepare(ctx, version)
}

func (f *File) openReader() error {
	dsn, err := dsn(f.path)
	if err != nil {
		return err
	}
	if f.Reader, err = sql.Open("sqlite", dsn+pragmas+readerPragmas); err != nil {
		return err
	}
	f.Reader.SetMaxOpenConns(readers)
	f.Reader.SetMaxIdleConns(readers)
	return nil
}

// checkAndRead checks the file while it is read. Both take long when it is large. An
// intact file is only checked when it cannot be read.
func (f *File) checkAndRead(ctx context.Context, read func(context.Context, *File) error) error {
	f.isRead = true
	if f.isIntact {
		err := read(ctx, f)
		if err != nil {
			err = errors.Join(f.check(ctx), err)
		}
		return err
	}
	checked := make(chan error, 1)
	go func() { checked <- f.check(ctx) }()
	err := read(ctx, f)
	return errors.Join(<-checked, err)
}

func (s Schema) writerPragmas() string {
	if s.Shared {
		return sharedPragmas
	}
	return writerPragmas
}

func dsn(path string) (string, error) {
	abs, err := filepath.Abs(path)
	return "file://" + (&url.URL{Path: abs}).EscapedPath() + "?", err
}

// identify checks, without writing, that the file is ours, and returns its version;
// 0 means that it is empty.
func (f *File) identify(ctx context.Context, dsn string) (version int, err error) {
	var head [header]byte
	switch n, err := f.lock.ReadAt(head[:], 0); {
	case n == 0 && errors.Is(err, io.EOF):
		return 0, nil
	case err != nil && !errors.Is(err, io.EOF):
		return 0, err
	case !strings.HasPrefix(string(head[:n]), magic):
		return 0, fmt.Errorf("%w: it does not begin as one", errCorrupt)
	}
	db, err := sql.Open("sqlite", dsn+pragmas+readerPragmas)
	if err != nil {
		return 0, err
	}
	db.SetMaxOpenConns(1)
	version, err = f.schema.versionIn(ctx, db)
	return version, errors.Join(err, db.Close())
}

// versionIn returns the version of a database of ours; 0 means that it is empty.
func (s Schema) versionIn(ctx context.Context, db *sql.DB) (version int, err error) {
	var id uint32
	if err := errors.Join(
		db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id),
		db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)); err != nil {
		return 0, err
	}
	if id == s.ID {
		return version, nil
	}
	tables, err := tablesOf(ctx, db)
	switch {
	case err != nil:
		return 0, err
	case id == 0 && version == 0 && len(tables) == 0, id == 0 && version > 0 && slices.Equal(tables, s.Tables):
		return version, nil
	}
	return 0, fmt.Errorf("%w (application_id %#x, tables %.100q): name a path of its own", ErrForeign, id, tables)
}

func tablesOf(ctx context.Context, db *sql.DB) (tables []string, err error) {
	err = each(ctx, db, func(rows *sql.Rows) error {
		var name string
		err := rows.Scan(&name)
		tables = append(tables, name)
		return err
	}, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name LIMIT 20")
	return tables, err
}

// checkLook is the time between two signs that a check still runs.
const checkLook = 5 * time.Second

// check checks that SQLite can use the file. It writes nothing.
func (f *File) check(ctx context.Context) error {
	defer f.showCheck()()
	var verdict string
	if err := f.Writer.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", errCorrupt, verdict)
	}
	return nil
}

// showCheck shows that the start goes on until the returned function is called.
func (f *File) showCheck() (done func()) {
	if f.note == nil {
		return func() {}
	}
	stop := make(chan struct{})
	var showing sync.WaitGroup
	showing.Go(func() {
		look := time.NewTicker(checkLook)
		defer look.Stop()
		for {
			select {
			case <-look.C:
				f.note(0)
			case <-stop:
				return
			}
		}
	})
	return func() {
		close(stop)
		showing.Wait()
	}
}

// prepare creates the schema, or converts the file to it.
func (f *File) prepare(ctx context.Context, version int) error {
	if version > f.schema.Version {
		return fmt.Errorf("its version is %d, this release knows %d: it was written by a newer release", version, f.schema.Version)
	}
	statements := "BEGIN IMMEDIATE;"
	for v := version; v > 0 && v < f.schema.Version; v++ {
		statements += f.schema.Migrate[v]
	}
	statements += f.schema.Create + "PRAGMA application_id = " + strconv.Itoa(int(f.schema.ID)) + "; PRAGMA user_version = " + strconv.Itoa(f.schema.Version) + ";COMMIT"
	// This runs always, so that a file or disk that cannot be written is found now.
	if _, err := f.Writer.ExecContext(ctx, statements); err != nil {
		return err
	}
	// Now the header is in the file itself, where checkHeaders reads it.
	_, err := f.Writer.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

// Prepare returns a statement for the readers. It is closed with the file.
func (f *File) Prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	s, err := f.Reader.PrepareContext(ctx, query)
	if err == nil {
		f.statements = append(f.statements, s)
	}
	return s, err
}

// PrepareWrite returns a statement for the writer. It is closed with the file. It must
// not be called in InTx, which has the one connection.
func (f *File) PrepareWrite(query string) (*sql.Stmt, error) {
	s, err := f.Writer.Prepare(query)
	if err == nil {
		f.statements = append(f.statements, s)
	}
	return s, err
}

// end closes the file after all changes have been written.
func (f *File) end() error {
	err := f.closeDatabase()
	if err == nil {
		f.leaveMark()
	}
	return errors.Join(err, f.unlock())
}

func (f *File) close() error { return errors.Join(f.closeDatabase(), f.unlock()) }

// closeDatabase ends SQLite's use of the file.
func (f *File) closeDatabase() error {
	var errs []error
	for _, s := range f.statements {
		errs = append(errs, s.Close())
	}
	if f.Reader != nil {
		errs = append(errs, f.Reader.Close())
	}
	if f.Writer != nil {
		errs = append(errs, f.Writer.Close())
	}
	return errors.Join(errs...)
}

func (f *File) unlock() error {
	// A child that is being forked has the file open, too, until it executes its program.
	return errors.Join(syscall.Flock(int(f.lock.Fd()), syscall.LOCK_UN), f.lock.Close())
}

// forsake closes a file that something has happened to. It does not let SQLite remove
// the log at the path, which may belong to another file by now. A log whose file is
// gone is removed, because SQLite would use it for the next file. Errors are ignored:
// the caller knows that something is wrong with the file.
func (f *File) forsake(ctx context.Context) {
	if conn, err := f.Writer.Conn(ctx); err == nil {
		_ = conn.Raw(func(driver any) error {
			if c, ok := driver.(sqlite.FileControl); ok {
				_, err = c.FileControlPersistWAL("main", 1)
			}
			return err
		})
		_ = conn.Close()
	}
	now := look(f.path)
	_ = f.close()
	if !now.main.sameFile(f.seen.main) && now.log.sameFile(f.seen.log) && now.log != (glance{}) {
		_ = os.Remove(f.path + logSuffix)
		_ = os.Remove(f.path + indexSuffix)
	}
}

// explain adds the fix to an error.
func (f *File) explain(err error) error {
	fix := ""
	switch code(err) {
	case sqlite3.SQLITE_CANTOPEN:
		return f.explainOpen(err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		fix = ": the daemon's user must be able to write this file and its directory"
	case sqlite3.SQLITE_FULL:
		err, fix = transient.Mark(err), ": the disk is full"
	case sqlite3.SQLITE_IOERR:
		err, fix = transient.Mark(err), ": the disk is full, read-only or broken: see df and the kernel's log"
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOMEM:
		err = transient.Mark(err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		err = fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return fmt.Errorf("%s store %s: %w%s", f.schema.Name, f.path, err, fix)
}

// explainOpen adds why SQLite could not open a file, which it does not say: what a person
// must correct, such as the rights to the file, its log, its index or its folder. If nothing
// is wrong with them, the cause has passed or will pass, such as too few descriptors. None of
// them is opened: to close one would end the locks of SQLite's own connections.
func (f *File) explainOpen(err error) error {
	cause := usable(filepath.Dir(f.path), unix.W_OK|unix.X_OK)
	for _, suffix := range []string{"", logSuffix, indexSuffix} {
		if cause == nil {
			cause = ignoreMissing(usable(f.path+suffix, unix.R_OK|unix.W_OK))
		}
	}
	fix := ": the daemon's user must be able to write this file and its directory"
	if cause == nil || transient.Is(cause) {
		err, fix = transient.Mark(err), ""
	}
	if cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	return fmt.Errorf("%s store %s: %w%s", f.schema.Name, f.path, err, fix)
}

// usable returns why a file, or a folder that must be passed through, cannot be used.
func usable(path string, how uint32) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if how&unix.X_OK == 0 && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", path)
	}
	if err := unix.Access(path, how); err != nil {
		return &fs.PathError{Op: "access", Path: path, Err: err}
	}
	return nil
}

// code returns SQLite's primary result code, 0 for an error that is not SQLite's.
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

// isUnusable reports whether the file at the path must be replaced by a new one.
func isUnusable(err error) bool { return isCorrupt(err) || errors.Is(err, ErrForeign) }
