package sqlitestore_test

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
	"github.com/postern-mail/postern/internal/limit/sqlitestore"
	"github.com/postern-mail/postern/internal/limit/storetest"
)

func open(t *testing.T, path string) *sqlitestore.Store {
	t.Helper()
	s, err := sqlitestore.Open(sqlitestore.Options{
		Path: path, Memory: memstore.Options{Start: begin()},
		Now: func() time.Time { return begin() },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func begin() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) limit.Store {
		s := open(t, filepath.Join(t.TempDir(), "limits.db"))
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	})
}

// TestRestart shows that counts, peaks, alarms, networks and blocks outlive the process.
func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.db")
	s := open(t, path)
	r := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 10, Window: time.Hour, Action: limit.Defer}
	n := &limit.Rule{Key: limit.Login, Unit: limit.Networks, Count: 1, Window: time.Hour, Action: limit.Defer}
	mail := func(s limit.Store, txn string, at time.Time, recipients int64) limit.Answer {
		t.Helper()
		a, err := s.Take(t.Context(), &limit.Op{Step: limit.End, Txn: limit.DigestOf([]byte(txn)), Now: at, Items: []limit.Item{
			{ID: limit.CounterID(r, "bob"), Rule: r, Amount: recipients},
			{ID: limit.CounterID(n, "bob"), Rule: n, Member: "192.0.2.0/24"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := mail(s, "a", begin(), 4); a.Refused {
		t.Error("refused")
	}
	if a := mail(s, "b", begin().Add(30*time.Minute), 4); a.Uses[0].Alarm != 80 {
		t.Errorf("%+v", a)
	}
	if err := s.SetBlock(t.Context(), limit.Block{Login: "eve", Since: begin()}, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, path)
	if a := mail(s, "c", begin().Add(50*time.Minute), 3); !a.Refused || a.Uses[0].Used != 8 {
		t.Errorf("after a restart: %+v", a)
	}
	if a := mail(s, "d", begin().Add(70*time.Minute), 4); a.Refused || a.Uses[0].Used != 8 || a.Uses[0].Alarm != 0 {
		t.Errorf("after a restart, later: %+v", a)
	}
	if all, err := s.Blocks(t.Context()); err != nil || len(all) != 1 || all[0].Login != "eve" || !all[0].Until.IsZero() {
		t.Errorf("blocks: %+v, %v", all, err)
	}
	if n, err := s.Reset(t.Context(), []string{limit.CounterID(r, "bob").String()}); n != 1 || err != nil {
		t.Errorf("%d reset, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = open(t, path)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if a := mail(s, "e", begin().Add(71*time.Minute), 10); a.Refused {
		t.Errorf("what was reset is back: %+v", a)
	}
}

// TestKilled shows what is left of a store that was not closed: what its journal has.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "limits.db"))
	defer func() { _ = s.Close() }()
	r := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 10, Window: time.Hour, Action: limit.Defer}
	mail := func(s limit.Store, txn string) int64 {
		t.Helper()
		a, err := s.Take(t.Context(), &limit.Op{Step: limit.End, Txn: limit.DigestOf([]byte(txn)), Now: begin(), Items: []limit.Item{{ID: limit.CounterID(r, "bob"), Rule: r, Amount: 2}}})
		if err != nil {
			t.Fatal(err)
		}
		return a.Uses[0].Used
	}
	mail(s, "a")
	if err := s.Sync(t.Context()); err != nil { // settled
		t.Fatal(err)
	}
	mail(s, "b")
	var used int64
	for i := range 500 { // until it is in the journal, which nothing reports
		if used = mailTo(t, copyOf(t, dir, i), mail); used == 6 {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("used %d after the daemon was killed", used)
}

// TestResetKilled shows that what was reset stays so, when the daemon was killed before
// the journal was settled and starts twice.
func TestResetKilled(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "limits.db"))
	defer func() { _ = s.Close() }()
	r := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 10, Window: time.Hour, Action: limit.Defer}
	mail := func(s limit.Store, login, txn string) int64 {
		t.Helper()
		a, err := s.Take(t.Context(), &limit.Op{Step: limit.End, Txn: limit.DigestOf([]byte(txn)), Now: begin(), Items: []limit.Item{{ID: limit.CounterID(r, login), Rule: r, Amount: 2}}})
		if err != nil {
			t.Fatal(err)
		}
		return a.Uses[0].Used
	}
	mail(s, "bob", "a")
	if err := s.Sync(t.Context()); err != nil { // settled
		t.Fatal(err)
	}
	if n, err := s.Reset(t.Context(), []string{limit.CounterID(r, "bob").String()}); n != 1 || err != nil {
		t.Fatalf("%d reset, %v", n, err)
	}
	bobs := func(s limit.Store, txn string) int64 { return mail(s, "bob", txn) }
	for i := range 500 { // until the journal has it, which nothing reports
		path := copyOf(t, dir, i)
		again := copyOf(t, dir, 500+i)
		if mailTo(t, path, bobs) != 2 {
			runtime.Gosched()
			continue
		}
		if used := mailTo(t, again, func(s limit.Store, _ string) int64 { return mail(s, "eve", "e") }); used != 2 {
			t.Errorf("eve used %d", used)
		}
		if used := mailTo(t, again, bobs); used != 2 {
			t.Errorf("used %d after a reset and two starts", used)
		}
		return
	}
	t.Error("the reset was never in the journal")
}

// copyOf is what a daemon would find that is started now.
func copyOf(t *testing.T, dir string, i int) string {
	t.Helper()
	path := filepath.Join(dir, "copy"+strconv.Itoa(i))
	for _, suffix := range []string{"-wal", ""} {
		text, err := os.ReadFile(filepath.Join(dir, "limits.db"+suffix))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+suffix, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func mailTo(t *testing.T, path string, mail func(limit.Store, string) int64) int64 {
	t.Helper()
	s := open(t, path)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	return mail(s, "c")
}

// A row of the journal has each rule once, and a value once for all of its counters.
func TestJournal(t *testing.T) {
	row := func(rule, value string, window time.Duration, last limit.Millis, data string) memstore.Row {
		return memstore.Row{ID: limit.ID{Rule: rule, Value: value}, Logins: rule[0] == 'l', Window: window, Last: last, Data: []byte(data)}
	}
	gone := limit.ID{Rule: "login.recipients/3600", Value: "eve"}
	want := []memstore.Row{
		row("login.recipients/3600", "bob", time.Hour, 1_000_000, "1"),
		row("login.recipients/86400", "bob", 24*time.Hour, 1_000_000, ""),
		row("sender.messages/60", "bob", time.Minute, 999_999, "two"),
		row("login.recipients/3600", "eve", time.Hour, 1_000_001, "3"),
	}
	b := sqlitestore.AppendJournal(nil, &memstore.Batch{Gone: []limit.ID{gone}, Rows: want})
	for _, text := range []string{"login.recipients/3600", "bob"} {
		if n := strings.Count(string(b), text); n != 1 {
			t.Errorf("%q is %d times in %q", text, n, b)
		}
	}
	got, err := sqlitestore.ReadJournal(b)
	slices.Reverse(got)
	if want = append([]memstore.Row{{ID: gone}}, want...); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

// Rows of the former format are read.
func TestLongJournal(t *testing.T) {
	got, err := sqlitestore.ReadJournal([]byte("\x0alogin.x/60\x00\x10login.x/60 alice\x02\xc0\xa9\x07\x02\x01x"))
	want := []memstore.Row{
		{ID: limit.ID{Rule: "login.x/60", Value: "alice"}, Logins: true, Window: time.Minute, Last: 1, Data: []byte("x")},
		{ID: limit.ID{Rule: "login.x/60"}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte("\x01a\x00\x01b\x02\x02\x02\x01x"))
	f.Add([]byte("\x00\x02\x00\x01a\x01b\x02\x01x\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = sqlitestore.ReadJournal(b) })
}
