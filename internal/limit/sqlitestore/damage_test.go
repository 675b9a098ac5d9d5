package sqlitestore_test

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
	"github.com/postern-mail/postern/internal/limit/sqlitestore"
)

// damaged is what a store has reported about its file.
type damaged struct {
	rows, salvaged int
	first, lost    error
}

func openDamaged(t *testing.T, path string) (*sqlitestore.Store, *damaged) {
	t.Helper()
	d := &damaged{salvaged: -1}
	s, err := sqlitestore.Open(sqlitestore.Options{
		Path: path, Memory: memstore.Options{Start: begin()}, Now: begin,
		Damaged:  func(rows int, first error) { d.rows, d.first = d.rows+rows, first },
		Salvaged: func(blocks int, err error) { d.salvaged, d.lost = blocks, err },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, d
}

func closed(t *testing.T, s *sqlitestore.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// edit runs statements as a person would.
func edit(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func sent(t *testing.T, s limit.Store, login string, amount int64) int64 {
	t.Helper()
	a, err := s.Take(t.Context(), &limit.Op{Step: limit.End, Txn: limit.DigestOf([]byte(login)), Now: begin(), Items: []limit.Item{
		{ID: limit.CounterID(recipients, login), Rule: recipients, Amount: amount},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return a.Uses[0].Used
}

// block blocks eve, and mallory for an hour.
func block(t *testing.T, s limit.Store) {
	t.Helper()
	for login, until := range map[string]time.Time{"eve": {}, "mallory": begin().Add(time.Hour)} {
		if err := s.SetBlock(t.Context(), limit.Block{Login: login, Since: begin(), Until: until}, false); err != nil {
			t.Fatal(err)
		}
	}
}

func blocked(t *testing.T, s limit.Store) int {
	t.Helper()
	all, err := s.Blocks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A row that cannot be read costs its own counts only. It is reported once and kept.
func TestUnreadableRows(t *testing.T) {
	for name, c := range map[string]struct {
		edit   string
		source string
	}{
		"counter, cut":          {"UPDATE counters SET data = x'00' WHERE id LIKE '%bob'", "counters"},
		"counter, other type":   {"UPDATE counters SET last = 'yesterday' WHERE id LIKE '%bob'", "counters"},
		"counter, no window":    {"UPDATE counters SET window = 0 WHERE id LIKE '%bob'", "counters"},
		"transactions":          {"INSERT INTO transactions (ends, data) VALUES (4000000000000, x'0102')", "transactions"},
		"transactions, no time": {"INSERT INTO transactions (ends, data) VALUES ('soon', x'0102')", "transactions"},
		"journal":               {"INSERT INTO journal (data) VALUES (x'00ff')", "journal"},
		"journal, other format": {"INSERT INTO journal (data) VALUES ('garbage')", "journal"},
		"block":                 {"UPDATE blocks SET until = 'Friday' WHERE login = 'mallory'", "blocks"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "limits.db")
			s, _ := openDamaged(t, path)
			sent(t, s, "ann", 3)
			sent(t, s, "bob", 3)
			block(t, s)
			closed(t, s)
			edit(t, path, c.edit)

			s, d := openDamaged(t, path)
			if d.rows != 1 || d.first == nil {
				t.Errorf("%d rows reported, %v", d.rows, d.first)
			}
			if n := blocked(t, s); n != 2 {
				t.Errorf("%d blocks", n)
			}
			if used := counterOf(t, s, "ann"); used != 3 {
				t.Errorf("ann has used %d", used)
			}
			want := int64(3)
			if c.source == "counters" {
				want = 0
			}
			if used := counterOf(t, s, "bob"); used != want {
				t.Errorf("bob has used %d, want %d", used, want)
			}
			closed(t, s)

			s, d = openDamaged(t, path)
			if d.rows != 0 || blocked(t, s) != 2 || counterOf(t, s, "ann") != 3 {
				t.Errorf("the next start: %+v, %d blocks", d, blocked(t, s))
			}
			closed(t, s)
			if got := sources(t, path); got != c.source {
				t.Errorf("set aside from %q, want %q", got, c.source)
			}
		})
	}
}

// sources returns the tables of the rows that were set aside.
func sources(t *testing.T, path string) (all string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.QueryRow("SELECT group_concat(source) FROM unreadable").Scan(&all); err != nil {
		t.Fatal(err)
	}
	return all
}

func counterOf(t *testing.T, s limit.Store, login string) (used int64) {
	t.Helper()
	if err := s.Counters(t.Context(), limit.CounterID(recipients, login).String(), begin(), func(c limit.Counter) error {
		used = c.Used
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return used
}

// A counter that cannot be read in the journal has its older row.
func TestUnreadableInJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.db")
	s, _ := openDamaged(t, path)
	sent(t, s, "bob", 3)
	closed(t, s)
	id := limit.CounterID(recipients, "bob")
	row := sqlitestore.AppendJournal(nil, &memstore.Batch{Rows: []memstore.Row{
		{ID: id, Logins: true, Window: time.Hour, Last: begin().UnixMilli(), Data: []byte("?")},
		{ID: limit.CounterID(recipients, "ann"), Logins: true, Window: time.Hour, Last: begin().UnixMilli(), Data: binary.AppendUvarint(nil, 0)},
	}})
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO journal (data) VALUES (?)", row); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, d := openDamaged(t, path)
	if used := counterOf(t, s, "bob"); used != 3 || d.rows != 1 {
		t.Errorf("bob has used %d, %d rows reported", used, d.rows)
	}
	closed(t, s)
}

// A file that SQLite cannot use any more is renamed, and the blocks in it are kept.
func TestBlocksOfACorruptFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.db")
	s, _ := openDamaged(t, path)
	for i := range 200 {
		sent(t, s, "login"+string(rune('a'+i%26))+string(rune('a'+i/26)), 3)
	}
	block(t, s)
	closed(t, s)
	destroy(t, path, []byte("login.recipients/3600 loginaa"))
	s, d := openDamaged(t, path)
	if d.salvaged != 2 || d.lost != nil || blocked(t, s) != 2 {
		t.Errorf("%+v, %d blocks", d, blocked(t, s))
	}
	closed(t, s)
	s, d = openDamaged(t, path)
	if d.salvaged != -1 || blocked(t, s) != 2 {
		t.Errorf("the next start: %+v, %d blocks", d, blocked(t, s))
	}
	closed(t, s)

	if err := os.WriteFile(path, []byte("not a database at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, d = openDamaged(t, path)
	if d.salvaged != 0 || d.lost == nil {
		t.Errorf("a file with nothing in it: %+v", d)
	}
	closed(t, s)
}

// destroy overwrites the beginning of the page that has a text.
func destroy(t *testing.T, path string, text []byte) {
	t.Helper()
	const page = 4096
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, text)
	if at < page {
		t.Fatalf("%q is at %d", text, at)
	}
	at -= at % page
	copy(data[at:at+16], bytes.Repeat([]byte{0xff}, 16))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
