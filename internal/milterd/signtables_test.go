package milterd

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	_ "modernc.org/sqlite"

	"github.com/postern-mail/postern/internal/postfixtest/backendtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/milter/wire/wiretest"
)

// keyText is a private key in PEM.
func keyText(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(genkey(t, t.TempDir(), "home.example", sign.Ed25519)[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// domains are those in whose name a mail was signed.
func domains(r wiretest.EndReply) string {
	var all []string
	for _, c := range r.Changes {
		if _, rest, ok := strings.Cut(c.Value, " d="); c.Kind == 'i' && ok {
			domain, _, _ := strings.Cut(rest, ";")
			all = slices.Insert(all, 0, domain) // the topmost is inserted last
		}
	}
	return strings.Join(all, " ")
}

// Keys in a database sign without a reload; the provider's beside the domain's own;
// options are taken from a third table.
func TestKeysInSQLite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mail.sqlite")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(text string, args ...any) {
		t.Helper()
		if _, err := db.Exec(text, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE keys (name TEXT, value TEXT)")
	exec("CREATE TABLE senders (pattern TEXT, names TEXT)")
	exec("CREATE TABLE options (domain TEXT, value TEXT)")
	exec("INSERT INTO keys VALUES (?, ?)", "home", "home.example:s1:"+keyText(t))
	exec("INSERT INTO keys VALUES (?, ?)", "esp", "esp.example:e1:"+keyText(t))
	exec("INSERT INTO senders VALUES ('home.example', 'home'), ('news@home.example', 'home esp')")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--dkim-keys=", "--dkim-table-cache-ttl=0"}
	for flag, query := range map[string]string{
		"dkim-key-table":     "SELECT value FROM keys WHERE name = '%s'",
		"dkim-signing-table": "SELECT names FROM senders WHERE pattern = '%s'",
		"dkim-options-table": "SELECT value FROM options WHERE domain = '%s'",
	} {
		cf := filepath.Join(dir, flag+".cf")
		writeAt(t, cf, "dbpath = "+path+"\nquery = "+query+"\n", time.Hour)
		args = append(args, "--"+flag+"=sqlite:"+cf)
	}
	d, m, logs := start(t, args...)
	if n := logs.FilterMessageSnippet("no DKIM key").Len(); n != 0 {
		t.Errorf("%d warnings that there is no key", n)
	}
	check := func(when, from, want string) {
		t.Helper()
		if got := domains(sendOver(t, d, "--listen-sign", "From: <"+from+">\r\n")); got != want {
			t.Errorf("%s: %s is signed for %q, want %q", when, from, got, want)
		}
	}
	check("at first", "a@home.example", "home.example")
	check("at first", "News@Home.example", "home.example esp.example")
	check("at first", "a@other.example", "")
	exec("INSERT INTO keys VALUES (?, ?)", "other.example", "s "+keyText(t))
	exec("INSERT INTO senders VALUES ('other.example', '%')")
	check("a new row", "a@other.example", "other.example")
	exec("INSERT INTO options VALUES ('home.example', 'sign=no')")
	check("by its option", "a@home.example", "")
	if off, signed := decisions(t, m, record.SignOff), decisions(t, m, record.Signed); off != 1 || signed != 3 {
		t.Errorf("counted %v off and %v signed", off, signed)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	d.reload(t, args...)
	check("a database that all can read", "a@other.example", "")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	d.reload(t, args...)
	check("a private one", "News@other.example", "other.example")
	keys, err := (*signPart).list(partOf[*signPart](t, d.now()), t.Context(), struct{}{}, nil)
	if err != nil || !strings.Contains(fmt.Sprint(keys), "other.example s") {
		t.Errorf("listed %+v, %v", keys, err)
	}
	if text := fmt.Sprint(logs.All()); strings.Contains(text, "PRIVATE KEY") {
		t.Error("the log shows a key")
	}
}

// A MariaDB that goes away: what it said lately still signs; for others --on-error
// decides, and the record says why.
func TestKeysInMariaDB(t *testing.T) {
	m := backendtest.NewMariaDB(t, "CREATE DATABASE mail;\nCREATE TABLE mail.dkim (domain VARCHAR(255), selector VARCHAR(63), pem TEXT);\n"+
		"CREATE USER postern@localhost IDENTIFIED BY 'secret';\nGRANT SELECT ON mail.* TO postern@localhost;\n"+
		"INSERT INTO mail.dkim VALUES ('home.example', 'db', '"+keyText(t)+"')")
	cf := filepath.Join(t.TempDir(), "keys.cf")
	writeAt(t, cf, "hosts = unix:"+m.Socket+"\nuser = postern\npassword = secret\ndbname = mail\nquery = SELECT CONCAT(selector, ' ', pem) FROM dkim WHERE domain = '%s'\n", time.Hour)
	args := []string{"--dkim-keys=", "--dkim-table-cache-ttl=0", "--dkim-key-table=proxy:mysql:" + cf}
	d, counts, logs := start(t, args...)
	if got := domains(sendOver(t, d, "--listen-sign", fromHome)); got != "home.example" {
		t.Fatalf("signed for %q: %v", got, logs.All()[len(logs.All())-1].ContextMap())
	}
	m.Kill()
	if got := domains(sendOver(t, d, "--listen-sign", fromHome)); got != "home.example" {
		t.Errorf("with the server gone, signed for %q", got)
	}
	other := "From: <a@other.example>\r\n"
	if r := sendOver(t, d, "--listen-sign", other); domains(r) != "" || fmt.Sprint(r.Reply) != "accept" {
		t.Errorf("a domain that is not known: %+v", r)
	}
	if n := decisions(t, counts, record.CheckFailed); n != 1 {
		t.Errorf("%v decisions failed, want 1", n)
	}
	d.reload(t, append(args, "--on-error=tempfail")...)
	if r := sendOver(t, d, "--listen-sign", other); !strings.HasPrefix(fmt.Sprint(r.Reply), "451 ") {
		t.Errorf("with --on-error=tempfail: %+v", r)
	}
	if text := fmt.Sprint(logs.All()); strings.Contains(text, "secret") || strings.Contains(text, "PRIVATE KEY") {
		t.Error("the log shows a secret")
	}
}

// A text table is read again when it has changed, and what is wrong in it shows no key.
func TestKeysInTextTable(t *testing.T) {
	table := filepath.Join(t.TempDir(), "keys")
	indented := strings.ReplaceAll(strings.TrimSpace(keyText(t)), "\n", "\n  ")
	writeAt(t, table, "home.example s1 "+indented+"\n", time.Hour)
	args := []string{"--dkim-keys=", "--dkim-key-table=hash:" + table}
	d, _, logs := start(t, args...)
	if got := domains(sendOver(t, d, "--listen-sign", fromHome)); got != "home.example" {
		t.Fatalf("signed for %q", got)
	}
	writeAt(t, table, "other.example s1 "+indented+"\n", time.Minute)
	d.reload(t, args...)
	if got := domains(sendOver(t, d, "--listen-sign", fromHome)); got != "" {
		t.Errorf("after the row was removed, signed for %q", got)
	}
	plain := keyText(t)
	writeAt(t, table, "other.example s1 "+plain, time.Minute)
	line := strings.Split(plain, "\n")[1]
	if _, err := loadInto(d.current, d.Runtime, args...); err == nil || strings.Contains(err.Error(), line[:30]) {
		t.Errorf("at a reload: %v", err)
	}
	if text := fmt.Sprint(logs.All()); strings.Contains(text, line[:30]) {
		t.Errorf("the log shows a line of the key:\n%s", text)
	}
	if _, err := load(zap.NewNop(), args...); err == nil || strings.Contains(err.Error(), line[:30]) {
		t.Errorf("at start: %v", err)
	}
}

func TestDKIMTableSettings(t *testing.T) {
	key := strings.Join(strings.Fields(keyText(t)), " ")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--dkim-key-table=hash:/k", "--dkim-signing-table=/s"}, "make both of one kind"},
		{[]string{"--dkim-key-table=/k", "--dkim-signing-table=hash:/s"}, "make both of one kind"},
		{[]string{"--dkim-signing-table=hash:/s"}, "set dkim-key-table too"},
		{[]string{"--dkim-options-table=/o"}, "known types"},
		{[]string{"--dkim-key-table=inline:{{home.example = s " + key + "}}"}, "where everyone sees it"},
		{[]string{"--dkim-key-table=hash:/does/not/exist"}, "/does/not/exist"},
	} {
		_, err := load(zap.NewNop(), test.args...)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.60q: error %v, want %q", test.args, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), key[30:60]) {
			t.Errorf("the error shows a key: %v", err)
		}
	}
}

// What breaks a signature on its way is counted, over reloads too.
func TestFragileIsCounted(t *testing.T) {
	dir := t.TempDir()
	genkey(t, dir, "home.example", sign.Ed25519)
	d, m, _ := start(t, "--dkim-keys="+dir)
	sendOver(t, d, "--listen-sign", fromHome+"To: root\r\n")
	d.reload(t, "--dkim-keys="+dir)
	sendOver(t, d, "--listen-sign", fromHome+"X-Long: "+strings.Repeat("x", 1000)+"\r\nCc: root\r\n")
	err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(`
# HELP postern_dkim_fragile_total Signed mails whose signature will not survive the way to every receiver, by what breaks it.
# TYPE postern_dkim_fragile_total counter
postern_dkim_fragile_total{cause="8bit"} 0
postern_dkim_fragile_total{cause="8bit_header"} 0
postern_dkim_fragile_total{cause="bare_address"} 2
postern_dkim_fragile_total{cause="long_line"} 1
`), "postern_dkim_fragile_total")
	if err != nil {
		t.Error(err)
	}
}

// With --dkim-selfcheck what leaves is verified, and the outcome counted.
func TestSelfCheckIsCounted(t *testing.T) {
	dir := t.TempDir()
	genkey(t, dir, "home.example", sign.Both)
	d, m, _ := start(t, "--dkim-keys="+dir, "--dkim-selfcheck")
	sendOver(t, d, "--listen-sign", fromHome+"To: <b@away.example>\r\n")
	err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(`
# HELP postern_dkim_selfcheck_total Signed mails that were verified before they left, by what came of it.
# TYPE postern_dkim_selfcheck_total counter
postern_dkim_selfcheck_total{result="fail"} 0
postern_dkim_selfcheck_total{result="pass"} 1
`), "postern_dkim_selfcheck_total")
	if err != nil {
		t.Error(err)
	}
}

// While the daemon only watches, its keys are those of the default folder.
func TestFindKeysWhileWatching(t *testing.T) {
	file := filepath.Join(t.TempDir(), "milterd.toml")
	if err := os.WriteFile(file, []byte("shadow = [\"all\"]\ndkim-keys = \"\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	src := sign.KeySource{Dir: "/keys"}
	if err := FindKeys(&src, file); err != nil || src.Dir != "/keys" || src.KeyTable != "" {
		t.Errorf("%v, %+v", err, src)
	}
}
