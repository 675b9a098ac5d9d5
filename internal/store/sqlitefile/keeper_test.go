package sqlitefile

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var schema = Schema{
	Name: "notes", ID: 0x4e6f7465, Version: 2, Tables: []string{"notes"},
	Create:  "CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, text TEXT NOT NULL, old INTEGER);",
	Migrate: map[int]string{1: "ALTER TABLE notes ADD COLUMN old INTEGER;"},
}

// notes is a memory that a file follows.
type notes struct {
	mu      sync.Mutex
	all     map[string]string
	pending map[string]bool
	lost    int
}

func newNotes() *notes { return &notes{all: map[string]string{}, pending: map[string]bool{}} }

func (n *notes) set(name, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all[name], n.pending[name] = text, true
}

func (n *notes) copy() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.all)
}

func (n *notes) Fill(ctx context.Context, f *File) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	rows, err := f.Reader.QueryContext(ctx, "SELECT name, text FROM notes")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name, text string
		if err := rows.Scan(&name, &text); err != nil {
			return err
		}
		if _, ok := n.all[name]; !ok {
			n.all[name] = text
		}
	}
	return rows.Err()
}

func (n *notes) Lost() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lost++
	for name := range n.all {
		n.pending[name] = true
	}
}

func (n *notes) Turn(f *File) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.pending) == 0 {
		return nil
	}
	tx, err := f.Writer.Begin()
	if err != nil {
		return err
	}
	for name := range n.pending {
		if _, err := tx.Exec("INSERT OR REPLACE INTO notes VALUES (?, ?, 0)", name, n.all[name]); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	n.pending = map[string]bool{}
	return nil
}

func (*notes) Idle(*File) error { return nil }

func (n *notes) Pending() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.pending)
}

// lab is a Keeper with what it reports.
type lab struct {
	*Keeper
	notes  *notes
	path   string
	events chan Event
}

func start(t *testing.T, path string) *lab {
	t.Helper()
	return startWith(t, Options{Path: path})
}

func startWith(t *testing.T, o Options) *lab {
	t.Helper()
	l := &lab{notes: newNotes(), path: o.Path, events: make(chan Event, 100)}
	o.Schema, o.Report = schema, func(e Event) { l.events <- e }
	var err error
	l.Keeper, err = Open(o, l.notes)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// note writes a note and waits until it is in the file.
func (l *lab) note(t *testing.T, name string) {
	t.Helper()
	l.notes.set(name, "text of "+name)
	if err := l.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// heard waits for an event, which no request has to bring about.
func (l *lab) heard(t *testing.T, kind EventKind) Event {
	t.Helper()
	e := <-l.events
	if e.Kind != kind {
		t.Fatalf("heard %+v, want kind %d", e, kind)
	}
	return e
}

// stop closes the Keeper, which has nothing more to report.
func (l *lab) stop(t *testing.T) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if len(l.events) > 0 {
		t.Errorf("also heard %+v", <-l.events)
	}
}

func wantNotes(t *testing.T, path string, names ...string) {
	t.Helper()
	l := start(t, path)
	defer l.stop(t)
	got := l.notes.copy()
	for _, name := range names {
		if got[name] != "text of "+name {
			t.Errorf("%s is missing", name)
		}
	}
	if len(got) != len(names) {
		t.Errorf("the file has %v, want %v", got, names)
	}
}

// make writes a database as another program would.
func foreign(t *testing.T, path string) []byte {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec("CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('alice'); PRAGMA user_version = 1")
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return read(t, path)
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// overwrite changes a file in place. The descriptor stays open to the end:
// closing it would end the locks that SQLite has in this process.
func overwrite(t *testing.T, path string, content []byte, truncate bool) {
	t.Helper()
	flags := os.O_WRONLY
	if truncate {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
}

func noise(n int64) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// TestTrouble does to the file what people and programs do while it is in use.
// No one asks for anything: the writer has to notice, and memory has to be in
// the file when the daemon has stopped. In a bubble the writer looks only while the test
// waits for it, so each change is one to it, however many files it is made of.
func TestTrouble(t *testing.T) {
	size := func(t *testing.T, path string) int64 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	for name, test := range map[string]struct {
		do   func(t *testing.T, path string)
		want EventKind
	}{
		"removed": {func(t *testing.T, path string) {
			for _, part := range []string{"", "-wal", "-shm"} {
				if err := os.Remove(path + part); err != nil {
					t.Fatal(err)
				}
			}
		}, Gone},
		"the file alone removed": {func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, Gone},
		"moved away": {func(t *testing.T, path string) {
			if err := os.Rename(path, path+".old"); err != nil {
				t.Fatal(err)
			}
		}, Gone},
		"the log removed": {func(t *testing.T, path string) {
			if err := os.Remove(path + "-wal"); err != nil {
				t.Fatal(err)
			}
		}, Replaced},
		"cut off": {func(t *testing.T, path string) { overwrite(t, path, nil, true) }, 0},
		"overwritten": {func(t *testing.T, path string) {
			overwrite(t, path, noise(size(t, path)), false)
			overwrite(t, path+"-wal", noise(size(t, path+"-wal")), false)
		}, SetAside},
		"the log overwritten":  {func(t *testing.T, path string) { overwrite(t, path+"-wal", noise(size(t, path+"-wal")), false) }, 0},
		"replaced by no file":  {func(t *testing.T, path string) { replace(t, path, []byte("no database\n")) }, SetAside},
		"replaced by an empty": {func(t *testing.T, path string) { replace(t, path, nil) }, Replaced},
		"replaced by another program's database": {func(t *testing.T, path string) {
			replace(t, path, foreign(t, path+".theirs"))
		}, SetAside},
		"another program's database copied over it": {func(t *testing.T, path string) {
			overwrite(t, path, foreign(t, path+".theirs"), true)
		}, SetAside},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "notes.db")
				l := start(t, path)
				l.note(t, "before")
				test.do(t, path)
				e := <-l.events
				if test.want != 0 && e.Kind != test.want {
					t.Errorf("heard %+v, want kind %d", e, test.want)
				}
				if theirs, err := os.ReadFile(path + ".theirs"); err == nil {
					if aside := read(t, e.Aside); !bytes.Equal(theirs, aside) || !strings.Contains(e.Aside, ".foreign-") {
						t.Errorf("%s is not what the other program wrote", e.Aside)
					}
				}
				l.note(t, "after")
				l.stop(t)
				wantNotes(t, path, "before", "after")
			})
		})
	}
}

func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// An older copy of ours is taken up, and what memory knows is added to it.
func TestReplacedByOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "notes.db")
		old := start(t, path+".backup")
		old.note(t, "in the backup")
		old.stop(t)
		l := start(t, path)
		l.note(t, "in memory")
		if err := os.Rename(path+".backup", path); err != nil {
			t.Fatal(err)
		}
		l.heard(t, Replaced)
		l.stop(t)
		wantNotes(t, path, "in the backup", "in memory")
	})
}

// A path that cannot be opened is tried until it can.
func TestTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "store")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "notes.db")
		l := start(t, path)
		l.note(t, "before")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if e := l.heard(t, WriteFailing); !errors.Is(e.Err, os.ErrNotExist) {
			t.Errorf("reported %v", e.Err)
		}
		l.notes.set("meanwhile", "text of meanwhile")
		if err := l.Read(t.Context(), func(*File) error { return nil }); err == nil {
			t.Error("a file that is not there was read")
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		l.heard(t, WritingAgain)
		l.stop(t)
		wantNotes(t, path, "before", "meanwhile")
	})
}

// A reader that meets a corrupt page has the file looked at, even when nothing
// else shows it.
func TestSuspicion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, filepath.Join(t.TempDir(), "notes.db"))
		l.note(t, "before")
		err := l.Read(t.Context(), func(f *File) error {
			_, err := f.Reader.Exec("DELETE FROM notes")
			return err
		})
		if err == nil {
			t.Error("a reader may write")
		}
		if err := l.Read(t.Context(), func(*File) error { return fmt.Errorf("read a page: %w", errCorrupt) }); !errors.Is(err, errCorrupt) {
			t.Errorf("the reader gets %v", err)
		}
		l.heard(t, Replaced)
		l.stop(t)
		wantNotes(t, l.path, "before")
	})
}

// heldNotes are notes whose Fill waits, except the first time.
type heldNotes struct {
	*notes
	filled  bool
	filling chan struct{}
	goOn    chan struct{}
}

func (n *heldNotes) Fill(ctx context.Context, f *File) error {
	if n.filled {
		n.filling <- struct{}{}
		<-n.goOn
	}
	n.filled = true
	return n.notes.Fill(ctx, f)
}

// A reader does not wait longer than it may for a file that is opened again, which can
// take minutes.
func TestReadWhileItIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "notes.db")
		notes := &heldNotes{notes: newNotes(), filling: make(chan struct{}), goOn: make(chan struct{})}
		k, err := Open(Options{Path: path, Schema: schema}, notes)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		<-notes.filling
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, ctx := range []context.Context{ctx, t.Context()} {
			if ctx.Err() == nil {
				close(notes.goOn)
			}
			if err := k.Read(ctx, func(*File) error { return nil }); !errors.Is(err, ctx.Err()) {
				t.Errorf("got %v, want %v", err, ctx.Err())
			}
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Close says how much it could not write.
func TestCloseSaysWhatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "notes.db")
		l := start(t, path)
		l.note(t, "before")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		l.heard(t, WriteFailing)
		l.notes.set("lost", "")
		if err := l.Close(); err == nil || !strings.Contains(err.Error(), "2 entries could not be written and are lost") {
			t.Errorf("closed with %v", err)
		}
	})
}

func TestOneOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "notes.db")
		l := start(t, path)
		l.note(t, "before")
		link, symlink := filepath.Join(dir, "link.db"), filepath.Join(dir, "symlink.db")
		if err := errors.Join(os.Link(path, link), os.Symlink(path, symlink)); err != nil {
			t.Fatal(err)
		}
		for _, other := range []string{path, link, symlink} {
			if _, err := Open(Options{Path: other, Schema: schema}, newNotes()); err == nil || !strings.Contains(err.Error(), "another process uses it") {
				t.Errorf("%s opened twice: %v", other, err)
			}
		}
		// Who comes after the file was removed is its owner: the former has to wait.
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		other, err := Open(Options{Path: path, Schema: schema}, newNotes())
		if err != nil {
			e := l.heard(t, Gone) // it was faster
			t.Logf("%v, %v", e, err)
			l.stop(t)
			return
		}
		if e := l.heard(t, WriteFailing); !strings.Contains(fmt.Sprint(e.Err), "another process uses it") {
			t.Errorf("reported %v", e.Err)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
		l.heard(t, WritingAgain)
		l.stop(t)
	})
}

// A successor starts while its predecessor has the file, and gets it with all that the
// predecessor has written.
func TestSuccessorWaitsForTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "notes.db")
		before := start(t, path)
		before.note(t, "of the predecessor")
		after := startWith(t, Options{Path: path, Succeeds: true})
		if e := after.heard(t, Waiting); !errors.Is(e.Err, errInUse) {
			t.Errorf("reported %v", e.Err)
		}
		if err := after.Read(t.Context(), func(*File) error { return nil }); err == nil || !after.Pace.Failing() {
			t.Errorf("the file can be used: %v", err)
		}
		after.notes.set("of the successor", "text")
		before.stop(t)
		after.heard(t, WritingAgain)
		after.stop(t)
		last := start(t, path)
		if all := last.notes.copy(); len(all) != 2 {
			t.Errorf("the file has %v", all)
		}
		last.stop(t)
	})
}

// What is not ours is left alone.
func TestForeignAtStart(t *testing.T) {
	dir := t.TempDir()
	other := schema
	other.ID++
	for name, content := range map[string][]byte{
		"another program's": foreign(t, filepath.Join(dir, "theirs.db")),
		"another store's": func() []byte {
			k, err := Open(Options{Path: filepath.Join(dir, "other.db"), Schema: other}, newNotes())
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
			return read(t, filepath.Join(dir, "other.db"))
		}(),
	} {
		path := filepath.Join(t.TempDir(), "notes.db")
		replace(t, path, content)
		_, err := Open(Options{Path: path, Schema: schema, Report: func(e Event) { t.Errorf("%s: %+v", name, e) }}, newNotes())
		if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(read(t, path), content) {
			t.Errorf("%s database was changed", name)
		}
	}
}

func TestNoFile(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, t.TempDir(), "/dev/null", "/nonexistent/notes.db"} {
		if _, err := Open(Options{Path: path, Schema: schema}, newNotes()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A file of an older version is brought to this one; that of a newer is refused.
func TestVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.db")
	raw := func(statements string) {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = db.Exec(statements)
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	raw("CREATE TABLE notes (name TEXT PRIMARY KEY, text TEXT NOT NULL); INSERT INTO notes VALUES ('old', 'text of old'); PRAGMA user_version = 1")
	wantNotes(t, path, "old")
	wantNotes(t, path, "old")
	raw("PRAGMA user_version = 3")
	if _, err := Open(Options{Path: path, Schema: schema}, newNotes()); err == nil || !strings.Contains(err.Error(), "newer release") {
		t.Errorf("a newer version: %v", err)
	}
}

// TestBackOff counts the tries at a path that stays away.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "notes.db")
		var mu sync.Mutex
		now := time.Now()
		notes, events := newNotes(), make(chan Event, 10)
		k, err := Open(Options{Path: path, Schema: schema, Report: func(e Event) { events <- e },
			Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }}, notes)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if e := <-events; e.Kind != WriteFailing {
			t.Fatalf("heard %+v", e)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		notes.set("kept", "text of kept")
		mu.Lock()
		now = now.Add(time.Second)
		mu.Unlock()
		if e := <-events; e.Kind != WritingAgain {
			t.Fatalf("heard %+v", e)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		wantNotes(t, path, "kept")
	})
}

// TestLinks shows that another user cannot have the process write elsewhere by a link.
func TestLinks(t *testing.T) {
	const otherUser = 65534
	for name, test := range map[string]struct {
		link  string // suffix of its path
		owner int
		made  bool // the database exists
		want  string
	}{
		"our own":            {"", os.Geteuid(), false, ""},
		"another user's":     {"", otherUser, false, "is a symbolic link of another user"},
		"of the log":         {"-wal", os.Geteuid(), true, "is a symbolic link, which SQLite does not make"},
		"of the index":       {"-shm", os.Geteuid(), true, "is a symbolic link, which SQLite does not make"},
		"of the journal":     {"-journal", os.Geteuid(), true, "is a symbolic link, which SQLite does not make"},
		"of the log, before": {"-wal", os.Geteuid(), false, "is a symbolic link, which SQLite does not make"},
	} {
		if test.owner != os.Geteuid() && os.Geteuid() != 0 {
			continue // only root can give a link away
		}
		dir := t.TempDir()
		path, elsewhere := filepath.Join(dir, "notes.db"), filepath.Join(dir, "elsewhere")
		if test.made {
			k, err := Open(Options{Path: path, Schema: schema}, newNotes())
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.Symlink(elsewhere, path+test.link), os.Lchown(path+test.link, test.owner, -1)); err != nil {
			t.Fatal(err)
		}
		k, err := Open(Options{Path: path, Schema: schema}, newNotes())
		if k != nil {
			err = errors.Join(err, k.Close())
		}
		_, found := os.Lstat(elsewhere)
		if test.want == "" && (err != nil || found != nil) || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || found == nil) {
			t.Errorf("%s: %v, %v", name, err, found)
		}
	}
}
