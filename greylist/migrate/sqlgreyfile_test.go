package migrate_test

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/migrate"
)

// sqlgreyTables are made as sqlgrey 1.8 makes them.
const sqlgreyTables = `
CREATE TABLE connect (sender_name varchar(64) NOT NULL, sender_domain varchar(255) NOT NULL, src varchar(39) NOT NULL,
	rcpt varchar(255) NOT NULL, first_seen timestamp NOT NULL);
CREATE TABLE from_awl (sender_name varchar(64) NOT NULL, sender_domain varchar(255) NOT NULL, src varchar(39) NOT NULL,
	first_seen timestamp NOT NULL, last_seen timestamp NOT NULL, PRIMARY KEY (src, sender_domain, sender_name));
CREATE TABLE domain_awl (sender_domain varchar(255) NOT NULL, src varchar(39) NOT NULL,
	first_seen timestamp NOT NULL, last_seen timestamp NOT NULL, PRIMARY KEY (src, sender_domain));
CREATE TABLE config (parameter varchar(255) NOT NULL, value varchar(255), PRIMARY KEY (parameter));
`

// database makes a SQLite file. Its name has what a URL would take for more.
func database(t *testing.T, statements string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sql grey.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(statements)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string, yield func(migrate.Entry) error) (migrate.Summary, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return migrate.SqlgreyFile(t.Context(), f, time.FixedZone("", 3600), yield)
}

func TestSqlgreyDatabase(t *testing.T) {
	path := database(t, sqlgreyTables+`
INSERT INTO connect VALUES('alice','example.org','192.0.2','bob@example.net','2023-11-14 23:13:20');
INSERT INTO connect VALUES('-undef-','-undef-','192.0.2.7','o''neil@example.net','2023-11-14 23:13:20');
INSERT INTO from_awl VALUES('alice','shop.example','198.51.100','2023-11-01 00:00:00','2023-11-14 23:13:20');
INSERT INTO domain_awl VALUES('news.example','2001:db8::7','2023-11-01 00:00:00','2023-11-14 23:13:20');
INSERT INTO connect VALUES('a','b','not an address','c','2023-11-14 23:13:20');
INSERT INTO connect VALUES('a','b',x'ff00','c','2023-11-14 23:13:20');
INSERT INTO from_awl VALUES('-undef-','-undef-','198.51.100','2023-11-01 00:00:00','2023-11-14 23:13:20');
`)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, result := collect(t, func(yield func(migrate.Entry) error) (migrate.Summary, error) { return readFile(t, path, yield) })
	last := at(1700000000) // an hour before what a clock in UTC would have meant
	waiting := greylist.Triplet{First: last, Last: last}
	compare(t, got, []greylist.Entry{
		{ID: "192.0.2.0/24 alice@example.org bob@example.net", Triplet: waiting},
		{ID: "192.0.2.0/24 <> o'neil@example.net", Triplet: waiting},
		{ID: "shop.example@198.51.100.0/24", Client: greylist.Client{Passes: 1000, Last: last}},
		{ID: "news.example@2001:db8::/64", Client: greylist.Client{Passes: 1000, Last: last}},
	})
	if result.Read != 4 || result.Skipped != 3 || !strings.HasPrefix(result.Why[0], "table connect, row 3: src ") {
		t.Errorf("%+v", result)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
	stop := errors.New("enough")
	if _, err := readFile(t, path, func(migrate.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
}

func TestSqlgreyFileRefuses(t *testing.T) {
	none := func(migrate.Entry) error { return errors.New("an entry was found") }
	if _, err := readFile(t, database(t, "CREATE TABLE other (x)"), none); err == nil || !strings.Contains(err.Error(), "sqlgrey's tables") {
		t.Errorf("another program's database: %v", err)
	}
	if _, err := readFile(t, database(t, "CREATE TABLE connect (x)"), none); err == nil || !strings.Contains(err.Error(), "table connect: ") {
		t.Errorf("other columns: %v", err)
	}
	corrupt := filepath.Join(t.TempDir(), "corrupt")
	if err := os.WriteFile(corrupt, []byte("SQLite format 3\x00"+strings.Repeat("garbage", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile(t, corrupt, none); err == nil {
		t.Error("a corrupt file was read")
	}
}

// TestSqlgreyFileDump takes dumps as well, a short one too.
func TestSqlgreyFileDump(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(path, []byte(sqlgreyDumps["mysql"]), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, result := collect(t, func(yield func(migrate.Entry) error) (migrate.Summary, error) { return readFile(t, path, yield) }); len(got) != 4 {
		t.Errorf("%d entries, %+v", len(got), result)
	}
	if err := os.WriteFile(path, []byte("SQL"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile(t, path, func(migrate.Entry) error { return nil }); err == nil {
		t.Error("a short file was taken")
	}
}
