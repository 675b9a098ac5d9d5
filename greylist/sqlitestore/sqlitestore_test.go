package sqlitestore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/sqlitestore"
	"github.com/postern-mail/postern/greylist/storetest"
	"github.com/postern-mail/postern/internal/store/disktest"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// events collects what a store reports.
type events struct {
	mu  sync.Mutex
	all []sqlitefile.Event
}

func (e *events) report(event sqlitefile.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

func (e *events) kinds() []sqlitefile.EventKind {
	e.mu.Lock()
	defer e.mu.Unlock()
	var kinds []sqlitefile.EventKind
	for _, event := range e.all {
		kinds = append(kinds, event.Kind)
	}
	return kinds
}

// open opens a store that must have nothing to report, unless o says who
// listens.
func open(t testing.TB, o sqlitestore.Options) *sqlitestore.Store {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "greylist.db")
	}
	if o.Report == nil {
		o.Report = func(e sqlitefile.Event) { t.Errorf("event: %+v", e) }
	}
	s, err := sqlitestore.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t testing.TB, s *sqlitestore.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		s := open(t, sqlitestore.Options{})
		t.Cleanup(func() { closeStore(t, s) })
		return s
	})
}

// TestConformanceSmall keeps next to nothing in memory: nearly all is read
// from the file.
func TestConformanceSmall(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		s := open(t, sqlitestore.Options{Memory: 1})
		t.Cleanup(func() { closeStore(t, s) })
		return s
	})
}

func at() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }

func key(i int) greylist.Key {
	return greylist.NewKey("", "", fmt.Sprintf("192.0.%d.0/24", i%250), fmt.Sprintf("s%dx@example.org", i), "bob@example.net")
}

func limits() greylist.Limits {
	l := storetest.Limits()
	l.NetworkCap = 0
	return l
}

func see(t testing.TB, s greylist.Store, i int, now time.Time) greylist.Why {
	t.Helper()
	r, err := s.Seen(t.Context(), key(i), now, limits())
	return decided(t, r, err, now)
}

// seeWritten is see for a store with little memory. If what is not written yet fills a
// part of the memory, it is written first: then there must be room.
func seeWritten(t testing.TB, s *sqlitestore.Store, i int, now time.Time) greylist.Why {
	t.Helper()
	r, err := s.Seen(t.Context(), key(i), now, limits())
	if errors.Is(err, greylist.ErrFull) {
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, err = s.Seen(t.Context(), key(i), now, limits())
	}
	return decided(t, r, err, now)
}

func decided(t testing.TB, r greylist.Record, err error, now time.Time) greylist.Why {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return greylist.Decide(r, now, limits()).Why
}

func TestRestartForgetsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "with space?and%.db")
	s := open(t, sqlitestore.Options{Path: path})
	const n = 3000
	for i := range n {
		see(t, s, i, at())
	}
	for i := range n / 2 {
		see(t, s, i, at().Add(time.Minute)) // a second version of the row
	}
	if err := s.Credit(t.Context(), "192.0.2.0/24", at()); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = open(t, sqlitestore.Options{Path: path})
	defer closeStore(t, s)
	for i := range n {
		if why := see(t, s, i, at().Add(time.Hour)); why != greylist.Waited {
			t.Fatalf("%d: %d", i, why)
		}
	}
	if why := see(t, s, n, at()); why != greylist.New {
		t.Errorf("new: %d", why)
	}
	r, err := s.Peek(t.Context(), greylist.NewKey("", "", "192.0.2.0/24", "", ""))
	if err != nil || r.NetworkClient.Passes != 1 {
		t.Errorf("credit: %+v, %v", r, err)
	}
}

// TestEviction has memory for far less than the file holds.
func TestEviction(t *testing.T) {
	s := open(t, sqlitestore.Options{Memory: 1})
	defer closeStore(t, s)
	const n = 20_000
	for i := range n {
		seeWritten(t, s, i, at())
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if r, err := s.Peek(t.Context(), key(i)); err != nil || r.ByNetwork.First != greylist.At(at()) {
			t.Fatalf("%d: %+v, %v", i, r, err)
		}
	}
}

// TestRestartWithLessMemory opens a file that holds far more than memory may,
// and a second version of some of its rows.
func TestRestartWithLessMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "greylist.db")
	const n = 20_000
	s := open(t, sqlitestore.Options{Path: path})
	for i := range n {
		see(t, s, i, at())
	}
	closeStore(t, s)
	for _, when := range []time.Duration{time.Hour, 2 * time.Hour} {
		s = open(t, sqlitestore.Options{Path: path, Memory: 1})
		for i := range n {
			want := greylist.Waited
			if when > time.Hour {
				want = greylist.Known
			}
			if why := seeWritten(t, s, i, at().Add(when)); why != want {
				t.Fatalf("%d, after %v: %d", i, when, why)
			}
		}
		total := 0
		if err := s.Walk(t.Context(), func(greylist.Entry) error { total++; return nil }); err != nil || total != n {
			t.Errorf("%d rows, want %d: %v", total, n, err)
		}
		closeStore(t, s)
	}
}

// TestAnyRowIDs opens a file with gaps between its rows, and with a second row of one
// ID: the newest row counts.
func TestAnyRowIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "greylist.db")
	closeStore(t, open(t, sqlitestore.Options{Path: path}))
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	const n = 2500 // more than two pages
	first := at().UnixMilli()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	put := func(row, i int, first int64) {
		if _, err := tx.Exec("INSERT INTO entries VALUES (?, ?, ?, ?, 0, 0, 0, ?)", row, string(key(i).ByNetwork()), first, first, greylist.Scheme); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		put((i-5)*(i+1)*(i+1)*1000, i, first)
	}
	put(-7, 9, 1)
	if err := errors.Join(tx.Commit(), db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, most := range []int64{0, 1} {
		s := open(t, sqlitestore.Options{Path: path, Memory: most})
		for i := range n {
			if r, err := s.Peek(t.Context(), key(i)); err != nil || r.ByNetwork.First != greylist.Stamp(first) {
				t.Fatalf("%d: %+v, %v", i, r, err)
			}
		}
		closeStore(t, s)
	}
}

// A start that takes long reports how many rows it has read.
func TestLargeFileShowsProgress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "greylist.db")
	closeStore(t, open(t, sqlitestore.Options{Path: path}))
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	const n = 250_000
	_, err = db.ExecContext(t.Context(), `WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO entries SELECT i, 'x' || i || ' s r', 1, 1, 0, 0, 0, ? FROM n`, n, greylist.Scheme)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	var e events
	closeStore(t, open(t, sqlitestore.Options{Path: path, Report: e.report}))
	rows := 0
	for _, event := range e.all {
		if event.Kind != sqlitefile.Reading {
			t.Errorf("event: %+v", event)
		}
		rows += event.Rows
	}
	if rows < n-100_000 || rows > n {
		t.Errorf("%d of %d rows were reported", rows, n)
	}
}

// TestVersion1 opens a file as the first version of the schema had it.
func TestVersion1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "greylist.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	first := at().UnixMilli()
	_, err = db.Exec(`CREATE TABLE entries (rowid INTEGER PRIMARY KEY, hash INTEGER NOT NULL, id TEXT NOT NULL, first INTEGER NOT NULL,
		last INTEGER NOT NULL, passed INTEGER NOT NULL, passes INTEGER NOT NULL, manual INTEGER NOT NULL);
		CREATE INDEX entries_hash ON entries (hash); PRAGMA user_version = 1;
		INSERT INTO entries VALUES (7, 1234, ?, ?, ?, 0, 0, 0), (9, 5678, '192.0.2.0/24', 0, ?, 0, 3, 0)`,
		string(key(1).ByNetwork()), first, first, first)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []greylist.Why{greylist.Waited, greylist.Known} {
		s := open(t, sqlitestore.Options{Path: path})
		if why := see(t, s, 1, at().Add(time.Hour)); why != want {
			t.Errorf("%d, want %d", why, want)
		}
		see(t, s, 2, at())
		if r, err := s.Peek(t.Context(), greylist.NewKey("", "", "192.0.2.0/24", "", "")); err != nil || r.NetworkClient.Passes != 3 {
			t.Errorf("credit: %+v, %v", r.NetworkClient, err)
		}
		closeStore(t, s)
	}
}

// TestOlderScheme opens a file whose IDs were made by the first scheme.
func TestOlderScheme(t *testing.T) {
	path := filepath.Join(t.TempDir(), "greylist.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	first := at().UnixMilli()
	_, err = db.Exec(`CREATE TABLE entries (rowid INTEGER PRIMARY KEY, id TEXT NOT NULL, first INTEGER NOT NULL,
		last INTEGER NOT NULL, passed INTEGER NOT NULL, passes INTEGER NOT NULL, manual INTEGER NOT NULL);
		PRAGMA user_version = 2;
		INSERT INTO entries VALUES (1, '192.0.2.0/24 b.q7w8e9r0t1y2@news.example bob@example.net', ?1, ?1, 0, 0, 0),
			(2, '192.0.2.0/24 b.z9x8c7v6b5n4@news.example bob@example.net', ?1, ?1, ?1, 0, 0),
			(3, '192.0.2.0/24 alice@example.org bob@example.net', ?1, ?1, 0, 0, 0), (4, '192.0.2.0/24', 0, ?1, 0, 3, 0)`, first)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s := open(t, sqlitestore.Options{Path: path})
		for sender, passed := range map[string]bool{"b.a1s2d3f4g5h6@news.example": true, "alice@example.org": false} {
			k := greylist.NewKey("", "", "192.0.2.0/24", greylist.Sender(sender[:strings.IndexByte(sender, '@')], sender[strings.IndexByte(sender, '@')+1:]), "bob@example.net")
			r, err := s.Peek(t.Context(), k)
			if err != nil || r.ByNetwork.First != greylist.Stamp(first) || (r.ByNetwork.Passed != 0) != passed || r.NetworkClient.Passes != 3 {
				t.Errorf("%s: %+v, %v", sender, r, err)
			}
		}
		total := 0
		if err := s.Walk(t.Context(), func(greylist.Entry) error { total++; return nil }); err != nil || total != 3 {
			t.Errorf("%d rows, want 3: %v", total, err)
		}
		closeStore(t, s)
	}
	if db, err = sql.Open("sqlite", path); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var old int
	if err := db.QueryRow("SELECT count(*) FROM entries WHERE scheme < 2").Scan(&old); err != nil || old != 0 {
		t.Errorf("%d rows are of an older scheme, %v", old, err)
	}
}

func TestOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "greylist.db")
	s := open(t, sqlitestore.Options{Path: path})
	if _, err := sqlitestore.Open(sqlitestore.Options{Path: path}); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("second owner: %v", err)
	}
	closeStore(t, s)
	closeStore(t, open(t, sqlitestore.Options{Path: path}))
}

func TestCannotOpen(t *testing.T) {
	if _, err := sqlitestore.Open(sqlitestore.Options{Path: "/nonexistent/greylist.db"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := sqlitestore.Open(sqlitestore.Options{Path: t.TempDir()}); err == nil {
		t.Error("a directory was opened")
	}
}

// overwrite damages a part of a file. The file stays open until the test ends, because
// closing it would end SQLite's locks.
func overwrite(t *testing.T, path string, at int64, octets int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.WriteAt([]byte(strings.Repeat("\xff", octets)), at); err != nil {
		t.Fatal(err)
	}
}

func TestCorruptAtStart(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"no database": func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("garbage ", 1000)), 0o600) },
		"broken page": func(path string) error {
			overwrite(t, path, 4096, 6000)
			return nil
		},
		"cut off": func(path string) error { return os.Truncate(path, 9000) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "greylist.db")
			s := open(t, sqlitestore.Options{Path: path})
			for i := range 1000 {
				see(t, s, i, at())
			}
			closeStore(t, s)
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			damaged, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var e events
			s = open(t, sqlitestore.Options{Path: path, Report: e.report, Now: at})
			defer closeStore(t, s)
			aside := path + ".corrupt-20260304T050607Z"
			if len(e.all) != 1 || e.all[0].Kind != sqlitefile.SetAside || e.all[0].Aside != aside || e.all[0].Err == nil {
				t.Fatalf("events: %+v", e.all)
			}
			if kept, err := os.ReadFile(aside); err != nil || string(kept) != string(damaged) {
				t.Errorf("the damaged file was not kept: %v", err)
			}
			if why := see(t, s, 1, at()); why != greylist.New {
				t.Errorf("in a new file: %d", why)
			}
		})
	}
}

// TestCorruptAfterManyRows damages the oldest rows of a large file. What was read before
// them is forgotten with the file. It is noticed even if the time of the file is as its
// owner left it, so that the file is not checked first.
func TestCorruptAfterManyRows(t *testing.T) {
	for _, unnoticed := range []bool{false, true} {
		t.Run(fmt.Sprint("unnoticed ", unnoticed), func(t *testing.T) { corruptAfterManyRows(t, unnoticed) })
	}
}

func corruptAfterManyRows(t *testing.T, unnoticed bool) {
	path := filepath.Join(t.TempDir(), "greylist.db")
	const n = 20_000
	s := open(t, sqlitestore.Options{Path: path})
	for i := range n {
		see(t, s, i, at())
	}
	closeStore(t, s)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, path, 2*4096, 8*4096)
	if unnoticed {
		if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	var e events
	s = open(t, sqlitestore.Options{Path: path, Report: e.report})
	defer closeStore(t, s)
	if kinds := e.kinds(); len(kinds) != 1 || kinds[0] != sqlitefile.SetAside {
		t.Fatalf("events: %+v", e.all)
	}
	for i := range n {
		if r, err := s.Peek(t.Context(), key(i)); err != nil || r != (greylist.Record{}) {
			t.Fatalf("%d: %+v, %v", i, r, err)
		}
	}
}

// TestCorruptWhileRunning damages the file under the store: what is in memory
// goes into a new one. Memory is too small for all.
func TestCorruptWhileRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "greylist.db")
	const n, inMemory = 10_000, 10
	s := open(t, sqlitestore.Options{Path: path})
	for i := range n {
		see(t, s, i, at())
	}
	closeStore(t, s)
	var e events
	s = open(t, sqlitestore.Options{Path: path, Report: e.report, Memory: 1})
	for i := range inMemory { // they pass, and are the last that memory would give up
		see(t, s, i, at().Add(time.Hour))
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, path, 4096, int(info.Size())-4096)
	// It is noticed by the next write at the latest, or when a read fails.
	for i := inMemory; len(e.kinds()) == 0 && t.Context().Err() == nil; i = i%(n-1) + 1 {
		_, _ = s.Peek(t.Context(), key(i))
	}
	if kinds := e.kinds(); len(kinds) != 1 || kinds[0] != sqlitefile.SetAside {
		t.Fatalf("events: %+v", e.all)
	}
	// What the old file alone held is new, and is not looked for in the new one.
	gone := 0
	for i := range n {
		r, err := s.Peek(t.Context(), key(i))
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if r == (greylist.Record{}) {
			gone++
		}
	}
	if gone == 0 || gone == n {
		t.Errorf("%d of %d have gone with the file", gone, n)
	}
	closeStore(t, s)
	s = open(t, sqlitestore.Options{Path: path})
	defer closeStore(t, s)
	for i := range inMemory {
		if why := see(t, s, i, at().Add(2*time.Hour)); why != greylist.Known {
			t.Errorf("%d: %d", i, why)
		}
	}
}

// TestDiskFull fills a small disk: answers go on from memory, and what is
// there is written when there is room again.
func TestDiskFull(t *testing.T) {
	dir := disktest.Small(t)
	path := filepath.Join(dir, "greylist.db")
	var e events
	s := open(t, sqlitestore.Options{Path: path, Report: e.report})
	see(t, s, 0, at())
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	free := disktest.Filled(t, dir)
	const n = 3000
	for i := range n {
		if why := see(t, s, i, at().Add(time.Second)); why != greylist.New && i > 0 {
			t.Fatalf("%d: %d", i, why)
		}
	}
	if err := s.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("written to a full disk: %v", err)
	}
	for i := range n {
		if why := see(t, s, i, at().Add(time.Hour)); why != greylist.Waited {
			t.Fatalf("on a full disk, %d: %d", i, why)
		}
	}
	free()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if kinds := e.kinds(); len(kinds) != 2 || kinds[0] != sqlitefile.WriteFailing || kinds[1] != sqlitefile.WritingAgain {
		t.Errorf("events: %+v", e.all)
	}
	s = open(t, sqlitestore.Options{Path: path})
	defer closeStore(t, s)
	for i := range n {
		if why := see(t, s, i, at().Add(2*time.Hour)); why != greylist.Known {
			t.Fatalf("after a restart, %d: %d", i, why)
		}
	}
}

func TestReadOnlyDisk(t *testing.T) {
	dir := disktest.Small(t)
	path := filepath.Join(dir, "greylist.db")
	s := open(t, sqlitestore.Options{Path: path})
	see(t, s, 1, at())
	closeStore(t, s)
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlitestore.Open(sqlitestore.Options{Path: path}); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "must be able to write") {
		t.Errorf("read-only: %v", err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	s = open(t, sqlitestore.Options{Path: path})
	defer closeStore(t, s)
	if why := see(t, s, 1, at().Add(time.Hour)); why != greylist.Waited {
		t.Errorf("after all: %d", why)
	}
}

// TestPurge lets fake time pass, in short lives: every fifth of a second is a
// tick of the writer.
func TestPurge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "greylist.db")
	synctest.Test(t, func(t *testing.T) {
		s := open(t, sqlitestore.Options{Path: path})
		l := limits()
		l.RetryWindow, l.PassTTL = 10*time.Minute, time.Hour
		s.SetLimits(l)
		sees := func(i int) greylist.Why {
			r, err := s.Seen(t.Context(), key(i), time.Now(), l)
			if err != nil {
				t.Fatal(err)
			}
			return greylist.Decide(r, time.Now(), l).Why
		}
		const n = 2000
		for i := range n {
			sees(i)
		}
		time.Sleep(l.Delay)
		for i := range n / 4 {
			sees(i)
		}
		time.Sleep(l.RetryWindow + 15*time.Minute)
		sees(n)
		count := func() int {
			total := 0
			if err := s.Walk(t.Context(), func(greylist.Entry) error { total++; return nil }); err != nil {
				t.Fatal(err)
			}
			return total
		}
		if got := count(); got != n/4+1 {
			t.Errorf("%d entries after the retry window, want %d", got, n/4+1)
		}
		if why := sees(n - 1); why != greylist.New {
			t.Errorf("a purged one: %d", why)
		}
		if why := sees(0); why != greylist.Known {
			t.Errorf("one that had passed: %d", why)
		}
		time.Sleep(l.PassTTL + 15*time.Minute)
		if got := count(); got != 0 {
			t.Errorf("%d entries at the end", got)
		}
		closeStore(t, s)
	})
}

// TestPurgeFindsDamage damages rows that only the purge reads.
func TestPurgeFindsDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "greylist.db")
	synctest.Test(t, func(t *testing.T) {
		const n = 12_000
		long := strings.Repeat("long.", 50) // so that SQLite does not keep all pages in memory
		s := open(t, sqlitestore.Options{Path: path})
		for i := range n {
			k := greylist.NewKey("", "", "192.0.2.0/24", fmt.Sprint(long, i, "x@example.org"), "bob@example.net")
			if _, err := s.Seen(t.Context(), k, time.Now(), limits()); err != nil {
				t.Fatal(err)
			}
		}
		closeStore(t, s)
		var e events
		s = open(t, sqlitestore.Options{Path: path, Report: e.report})
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		const damaged = 8 * 4096
		overwrite(t, path, info.Size()-damaged, damaged)
		if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
			t.Fatal(err)
		}
		s.SetLimits(limits())
		time.Sleep(time.Minute)
		if kinds := e.kinds(); len(kinds) != 1 || kinds[0] != sqlitefile.SetAside {
			t.Errorf("events: %+v", e.all)
		}
		total := 0
		if err := s.Walk(t.Context(), func(greylist.Entry) error { total++; return nil }); err != nil || total != n {
			t.Errorf("%d entries in the new file, want %d: %v", total, n, err)
		}
		closeStore(t, s)
	})
}

// BenchmarkSeen is one sighting in a store of a million.
func BenchmarkSeen(b *testing.B) {
	s := open(b, sqlitestore.Options{})
	defer closeStore(b, s)
	var n int
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			n++
			see(b, s, n, at())
		}
	})
	b.Run("known", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i++
			see(b, s, i%n, at())
		}
	})
}
