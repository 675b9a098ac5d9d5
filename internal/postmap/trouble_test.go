package postmap

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/internal/postfixtest/backendtest"
	"github.com/postern-mail/postern/internal/postmap/remote"
)

// backend is a server in trouble: how its table is called, broken and fixed.
type backend struct {
	*backendtest.Server
	mapType, text, badPassword string
	refused                    []string // queries, with each of which the server answers strangeKey with an error
	dropTable, restoreTable    func()
	widen                      func() // changes the type of a column under prepared statements
}

func mariadb(t *testing.T) backend {
	m := backendtest.NewMariaDB(t, "CREATE DATABASE mail CHARACTER SET utf8mb4;\nUSE mail;\nCREATE TABLE owners (sender VARCHAR(255), login VARCHAR(255));\n",
		"INSERT INTO mail.owners VALUES "+strings.ReplaceAll(values(), `\`, `\\`)+";\nCREATE USER postfix@'127.0.0.1' IDENTIFIED BY 'secret';\nGRANT SELECT ON mail.* TO postfix@'127.0.0.1';\n")
	text := "hosts = " + m.Addr + "\nuser = postfix\npassword = secret\ndbname = mail\nquery = SELECT login FROM owners WHERE sender = '%s'\n"
	return backend{
		Server: m.Server, mapType: "mysql", text: text, badPassword: strings.Replace(text, "= secret", "= wrong-one", 1),
		dropTable: func() { m.Exec("RENAME TABLE mail.owners TO mail.gone;\n") }, restoreTable: func() { m.Exec("RENAME TABLE mail.gone TO mail.owners;\n") },
		refused: []string{
			"SELECT login FROM owners WHERE CONVERT(sender USING latin1) = '%s'",
			"SELECT login FROM owners WHERE CONCAT(CONVERT(sender USING latin1), '%s') = 'x'",
			"SELECT login FROM owners WHERE sender REGEXP '%s'",
		},
		widen: func() { m.Exec("ALTER TABLE mail.owners MODIFY login TEXT, ADD COLUMN more INT FIRST;\n") },
	}
}

func postgresql(t *testing.T) backend {
	p := backendtest.NewPostgreSQL(t, "CREATE TABLE owners (sender text, login varchar(200)); INSERT INTO owners VALUES "+values(),
		"CREATE ROLE postfix LOGIN PASSWORD 'secret'; GRANT SELECT ON owners TO postfix")
	text := "hosts = " + p.Addr + "\nuser = postfix\npassword = secret\ndbname = postgres\nquery = SELECT login FROM owners WHERE sender = '%s'\n"
	return backend{
		Server: p.Server, mapType: "pgsql", text: text, badPassword: strings.Replace(text, "= secret", "= wrong-one", 1),
		dropTable: func() { p.Exec("ALTER TABLE owners RENAME TO gone") }, restoreTable: func() { p.Exec("ALTER TABLE gone RENAME TO owners") },
		refused: []string{
			"SELECT login FROM owners WHERE length(login) = '%s'",
			"SELECT login FROM owners WHERE sender ~ '%s'",
			"SELECT login FROM owners WHERE convert_to('%s', 'LATIN1') IS NULL",
		},
		widen: func() { p.Exec("ALTER TABLE owners ALTER login TYPE text, ADD COLUMN more int") },
	}
}

func slapd(t *testing.T) backend {
	s := backendtest.NewSlapd(t, backendtest.SlapdConfig{Suffix: suffix, LDIF: ldif()})
	text := "server_host = ldap://" + s.Addr + "\nversion = 3\nsearch_base = ou=x.example," + suffix + "\nbind_dn = cn=admin," + suffix + "\nbind_pw = " + backendtest.RootPassword +
		"\nquery_filter = (mail=%s)\nresult_attribute = employeeNumber\n"
	move := func(from, to string) {
		s.Modify(func(c *ldap.Conn) error {
			return c.ModifyDN(ldap.NewModifyDNRequest("ou="+from+","+suffix, "ou="+to, false, ""))
		})
	}
	return backend{
		Server: s.Server, mapType: "ldap", text: text, badPassword: strings.Replace(text, backendtest.RootPassword, "wrong-one", 1),
		dropTable: func() { move("x.example", "gone") }, restoreTable: func() { move("gone", "x.example") }, widen: func() {},
	}
}

// trouble is a table under load with a record of what its State heard.
type trouble struct {
	t       *testing.T
	table   Table
	mu      sync.Mutex
	changes []remote.Change
}

func newTrouble(t *testing.T, b backend, text string, c remote.Config) *trouble {
	t.Helper()
	tr := &trouble{t: t}
	table, err := Open(b.mapType+":"+file(t, "owners.cf", text), Options{Remote: c, State: func(_ string, c remote.Change) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.changes = append(tr.changes, c)
	}})
	if err != nil {
		t.Fatal(err)
	}
	tr.table = table
	t.Cleanup(func() {
		if err := table.Source.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// heard gives the changes so far as text: "down up".
func (tr *trouble) heard() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var words []string
	for _, c := range tr.changes {
		if c.Up {
			words = append(words, "up")
		} else {
			words = append(words, "down")
		}
	}
	return strings.Join(words, " ")
}

// until asks until the answer to a fresh key, or the failure, is there.
func (tr *trouble) until(want string, ok func([]string, error) bool) {
	tr.t.Helper()
	for tr.t.Context().Err() == nil {
		got, err := tr.table.Source.Lookup(tr.t.Context(), "ann@x.example")
		heard := tr.heard()
		if ok(got, err) && heard == want {
			return
		}
		if !strings.HasPrefix(want, heard) {
			tr.t.Fatalf("heard %q, want %q; the latest answer is %q, %v", heard, want, got, err)
		}
		runtime.Gosched()
	}
}

func answers(got []string, err error) bool { return err == nil && strings.Join(got, ",") == "ann" }
func fails(_ []string, err error) bool     { return err != nil }

// TestServerTrouble breaks each server in every way while it is asked.
func TestServerTrouble(t *testing.T) {
	for name, start := range map[string]func(*testing.T) backend{"mysql": mariadb, "pgsql": postgresql, "ldap": slapd} {
		t.Run(name, func(t *testing.T) {
			b := start(t)
			t.Run("utf-8", func(t *testing.T) {
				if name == "ldap" {
					return // the attribute mail is ASCII only (RFC 4524)
				}
				tr := newTrouble(t, b, b.text, remote.Config{})
				got, err := tr.table.Source.Lookup(t.Context(), "jürgen@x.example")
				if err != nil || strings.Join(got, ",") != "juergen@x.example" {
					t.Errorf("got %q, %v", got, err)
				}
			})
			t.Run("wrong password", func(t *testing.T) {
				tr := newTrouble(t, b, b.badPassword, remote.Config{})
				tr.until("down", fails)
				if err := tr.changes[0].Err; strings.Contains(err.Error(), "wrong-one") {
					t.Errorf("the error %v contains the password", err)
				}
			})
			t.Run("table missing", func(t *testing.T) { b.missingTable(t) })
			t.Run("schema changed", func(t *testing.T) {
				tr := newTrouble(t, b, b.text, remote.Config{})
				tr.until("", answers)
				b.widen()
				if got, err := tr.table.Source.Lookup(t.Context(), "ann@x.example"); !answers(got, err) {
					t.Errorf("got %q, %v", got, err)
				}
			})
			t.Run("killed under load", func(t *testing.T) { b.killedUnderLoad(t) })
			t.Run("hung", func(t *testing.T) { b.hung(t) })
			t.Run("last known", func(t *testing.T) { b.lastKnown(t) })
			t.Run("keys that the server refuses", func(t *testing.T) { b.refusedKeys(t) })
			t.Run("no leak", func(t *testing.T) { b.noLeak(t) })
		})
	}
}

// strangeKey has a character that few charsets have, and is no number and no expression.
const strangeKey = "(用户@x.example"

// refusedKeys asks for a key that is an error to the server, as any user may send one. The
// server does not count as down, and its connections to others are not closed.
func (b backend) refusedKeys(t *testing.T) {
	for _, query := range b.refused {
		before, _, _ := strings.Cut(b.text, "\nquery = ")
		tr := newTrouble(t, b, before+"\nquery = "+query+"\n", remote.Config{})
		for range 5 {
			if got, err := tr.table.Source.Lookup(t.Context(), strangeKey); !remote.IsKeyError(err) {
				t.Errorf("%s: got %q, %v", query, got, err)
			}
		}
		if got, err := tr.table.Source.Lookup(t.Context(), "1"); err != nil || tr.heard() != "" {
			t.Errorf("%s: the next key: got %q, %v, heard %q", query, got, err, tr.heard())
		}
	}
}

func (b backend) missingTable(t *testing.T) {
	tr := newTrouble(t, b, b.text, remote.Config{})
	tr.until("", answers)
	b.dropTable()
	tr.until("down", fails)
	b.restoreTable()
	tr.until("down up", answers)
}

// killedUnderLoad ends and starts the server while eight clients ask. None hears
// a wrong answer, and each failure is an error.
func (b backend) killedUnderLoad(t *testing.T) {
	tr := newTrouble(t, b, b.text, remote.Config{})
	tr.until("", answers)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var wrong atomic.Value
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				got, err := tr.table.Source.Lookup(ctx, "ann@x.example")
				if err == nil && strings.Join(got, ",") != "ann" {
					wrong.Store(fmt.Sprint(got))
				}
			}
		})
	}
	b.Kill()
	tr.until("down", fails)
	b.Start()
	tr.until("down up", answers)
	stop()
	wg.Wait()
	if got := wrong.Load(); got != nil {
		t.Errorf("the server's absence was answered with %v", got)
	}
}

// hung holds that a server which keeps its connections and says nothing costs a
// caller no more than the caller's own deadline.
func (b backend) hung(t *testing.T) {
	tr := newTrouble(t, b, b.text, remote.Config{Timeout: time.Second}) // a busy machine answers in less
	tr.until("", answers)
	b.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := tr.table.Source.Lookup(ctx, "ann@x.example"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a deadline: %v", err)
	}
	tr.until("down", fails)
	b.Resume()
	tr.until("down up", answers)
}

// lastKnown holds that a known answer is used, that an unknown key is an error,
// and that the record of the table says so.
func (b backend) lastKnown(t *testing.T) {
	var now atomic.Int64
	clock := func() time.Time { return time.Unix(1_000_000, now.Load()) }
	tr := newTrouble(t, b, b.text, remote.Config{TTL: time.Minute, NegativeTTL: time.Minute, StaleFor: time.Hour, Now: clock})
	tr.until("", answers)
	b.Kill()
	now.Store(int64(2 * time.Minute))
	for tr.heard() == "" {
		if got, err := tr.table.Source.Lookup(t.Context(), "ann@x.example"); !answers(got, err) {
			t.Fatalf("last known: %q, %v", got, err)
		}
	}
	if where := tr.table.Locate("ann@x.example"); !strings.Contains(where, "last known, 2m0s old") {
		t.Errorf("the place is told as %q", where)
	}
	if _, err := tr.table.Source.Lookup(t.Context(), "pr@x.example"); err == nil {
		t.Error("an unknown key was answered without a server")
	}
	now.Store(int64(3 * time.Hour))
	if _, err := tr.table.Source.Lookup(t.Context(), "ann@x.example"); err == nil {
		t.Error("an answer was good for ever")
	}
	b.Start()
	for step := int64(time.Hour); ; step += int64(time.Minute) {
		now.Store(int64(3*time.Hour) + step)
		if got, err := tr.table.Source.Lookup(t.Context(), "ann@x.example"); answers(got, err) {
			return
		}
	}
}

// noLeak holds that 10,000 questions leave no goroutine and no open file behind
// but those of the pool, and a closed table none at all.
func (b backend) noLeak(t *testing.T) {
	before, files := runtime.NumGoroutine(), openFiles(t)
	table, err := Open(b.mapType+":"+file(t, "owners.cf", b.text), Options{MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 1250 {
				key := fmt.Sprintf("u%d-%d@x.example", worker, i)
				if got, err := table.Source.Lookup(t.Context(), key); err != nil || len(got) > 0 {
					t.Errorf("%s: %q, %v", key, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if open := openFiles(t); open > files+4 {
		t.Errorf("%d files are open, %d before, the pool has 4", open, files)
	}
	if err := table.Source.Close(); err != nil {
		t.Error(err)
	}
	for runtime.NumGoroutine() > before || openFiles(t) > files {
		if t.Context().Err() != nil {
			t.Fatalf("%d goroutines and %d files are left of %d and %d", runtime.NumGoroutine(), openFiles(t), before, files)
		}
		runtime.Gosched()
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestSQLiteModes reads a database in WAL mode with a live writer, without any,
// and one that is changed and replaced between questions; nothing is ever written
// beside it.
func TestSQLiteModes(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "owners.sqlite")
	fillSQLite(t, path, "PRAGMA journal_mode = wal", "CREATE TABLE owners (sender TEXT, login TEXT)", "INSERT INTO owners VALUES ('a', 'one')")
	only := func(when string, want ...string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if strings.Join(names, " ") != strings.Join(want, " ") {
			t.Errorf("%s: the folder holds %q, want %q", when, names, want)
		}
	}
	table, err := Open("sqlite:"+file(t, "owners.cf", "dbpath = "+path+"\nquery = SELECT login FROM owners WHERE sender = '%s'\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Source.Close()
	ask := func(when, want string) {
		t.Helper()
		if got, err := table.Source.Lookup(t.Context(), "a"); err != nil || strings.Join(got, ",") != want {
			t.Errorf("%s: got %q, %v, want %q", when, got, err, want)
		}
	}
	ask("no writer", "one")
	only("no writer", "owners.sqlite")
	fillSQLite(t, path, "UPDATE owners SET login = 'two'")
	ask("after a writer", "two")
	only("after a writer", "owners.sqlite")
	writer := openWriter(t, path)
	writer("UPDATE owners SET login = 'three'")
	ask("with a live writer", "three")
	writer("UPDATE owners SET login = 'four'")
	ask("with a live writer, again", "four")
	writer("")
	ask("the writer has gone", "four")
	// A log that belongs to the old file must go with it, as SQLite demands.
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	replacement := filepath.Join(dir, "new")
	fillSQLite(t, replacement, "CREATE TABLE owners (sender TEXT, login TEXT)", "INSERT INTO owners VALUES ('a', 'five')")
	if err := os.Rename(replacement, path); err != nil {
		t.Fatal(err)
	}
	ask("replaced", "five")
	fillSQLite(t, path, "DROP TABLE owners")
	if _, err := table.Source.Lookup(t.Context(), "a"); err == nil {
		t.Error("answered without a table")
	}
	fillSQLite(t, path, "CREATE TABLE owners (x INT, login TEXT, sender TEXT)", "INSERT INTO owners VALUES (1, 'six', 'a')")
	ask("another schema", "six")
}

// openWriter gives a function that runs statements on one connection, which the
// empty statement closes.
func openWriter(t *testing.T, path string) func(string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return func(statement string) {
		t.Helper()
		if statement == "" {
			err = db.Close()
		} else {
			_, err = db.ExecContext(t.Context(), statement)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
