package e2e

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/postfixtest/backendtest"
)

// native is a submission service that Postfix guards itself, by
// reject_authenticated_sender_login_mismatch with the very same maps.
const native = "native"

// backendSite is one kind of site: its maps asked by Postfix and by Postern.
type backendSite struct {
	dir     string
	maps    []string // smtpd_sender_login_maps, and the owners of the daemon
	args    []string // further flags of the daemon
	config  string   // its configuration file, "" for none
	logins  []string
	verdict []verdict
}

// verdict is what both must say about a sender. Where they differ, why is the reason.
type verdict struct {
	login, from string
	postfix     int
	postern     int // 0 means the same
	why         string
}

// exampleFile copies a file of deploy/examples with the places of this test.
func exampleFile(t *testing.T, dir, name string, replace ...string) string {
	t.Helper()
	root, err := postfixtest.ModuleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy", "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(text), replace[i]) {
			t.Fatalf("%s has no %q", name, replace[i])
		}
	}
	return writeFile(t, dir, filepath.Base(name), strings.NewReplacer(replace...).Replace(string(text)))
}

func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(name, ".cf") { // it holds a password: root:postfix 0640
		forPostfix(t, path)
	}
	return path
}

// forPostfix keeps a file from everybody but root and Postfix.
func forPostfix(t *testing.T, path string) {
	t.Helper()
	group, err := user.LookupGroup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o640)); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// open is a directory that the postfix user may read.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := postfixtest.MakeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// checkReadme asserts that an example shows the line that this test attaches by.
func checkReadme(t *testing.T, name string) {
	t.Helper()
	root, err := postfixtest.ModuleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name0, value, _ := strings.Cut(senderRestrictions("inet:127.0.0.1:10045"), "=")
	line := "-o { " + name0 + " = " + value + " }"
	if text := readFile(t, filepath.Join(root, "deploy", "examples", name, "README.md")); !strings.Contains(text, line) {
		t.Errorf("%s/README.md does not show %q", name, line)
	}
}

// run sends every mail by both services and compares.
func (b backendSite) run(t *testing.T) {
	t.Helper()
	postfixtest.Require(t)
	addr, err := postfixtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	if b.config == "" {
		b.config = writeFile(t, b.dir, "policyd.toml", "")
	}
	path, err := binaries.Path(t.Context(), "postern-policyd")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--config", b.config, "--listen", "inet:" + addr, "--checks", ownership,
		"--admin", "unix:" + filepath.Join(b.dir, "admin.sock"), "--metrics-listen", ""}
	daemon := postfixtest.NewDaemon(t, postfixtest.DaemonConfig{Path: path, Args: slices.Concat(args, b.args)})
	users := map[string]string{}
	for _, login := range b.logins {
		users[login] = password
	}
	p := postfixtest.New(t, postfixtest.Config{
		Users:      users,
		Main:       []string{"smtpd_sender_login_maps = " + strings.Join(b.maps, ", "), "smtputf8_enable = yes"},
		Submission: []string{senderRestrictions("inet:" + addr)},
		More:       []postfixtest.Service{{Name: native, Login: true, Options: []string{"smtpd_sender_restrictions=reject_authenticated_sender_login_mismatch"}}},
	})
	for _, v := range b.verdict {
		v.check(t, p)
	}
	if t.Failed() {
		t.Logf("the daemon's log ends:\n%s", daemon.LogTail())
	}
}

func (v verdict) check(t *testing.T, p *postfixtest.Postfix) {
	t.Helper()
	want := v.postern
	if want == 0 {
		want = v.postfix
	}
	mail := As(v.login, v.from, Dora)
	for _, c := range []struct {
		service string
		code    int
	}{{native, v.postfix}, {postfixtest.Submission, want}} {
		r, err := p.Send(t.Context(), c.service, mail)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Final(); got.Code != c.code {
			t.Errorf("%s: %s as %.60s: %s, want %d (%s)", c.service, v.login, v.from, got, c.code, v.why)
		}
	}
}

func TestMailInABox(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	db := filepath.Join(dir, "users.sqlite")
	fill(t, db, readFile(t, exampleFile(t, dir, "mailinabox/users.sql")))
	maps := exampleFile(t, dir, "mailinabox/sender-login-maps.cf", "/home/user-data/mail/users.sqlite", db)
	ann, bob := "ann@box.example", "bob@box.example"
	backendSite{
		dir: dir, maps: []string{"sqlite:" + maps}, logins: []string{ann, bob},
		config: exampleFile(t, dir, "mailinabox/policyd.toml", "/etc/postfix/sender-login-maps.cf", maps),
		verdict: []verdict{
			{bob, bob, 250, 0, ""},
			{bob, "info@box.example", 250, 0, ""},
			{ann, "info@box.example", 250, 0, ""},
			{ann, "press@box.example", 553, 0, "permitted_senders wins over the destination"},
			{bob, "press@box.example", 250, 0, ""},
			{ann, ann, 553, 250, "an alias named like the user takes the own address away in Postfix"},
			{bob, ann, 250, 0, "the alias of that name is bob's"},
			{bob, "any@all.example", 250, 0, ""},
			{ann, "any@all.example", 553, 0, ""},
			{bob, "chain@box.example", 553, 0, "aliases behind aliases own nothing unless owner-alias-depth says so"},
			{bob, "BOB@Box.Example", 250, 0, ""},
			{bob, "bob+june@box.example", 250, 0, ""},
			{bob, "nobody@box.example", 553, 0, ""},
			{bob, "o'hara@box.example", 553, 0, ""},
			{bob, `"'; drop table users; --"@box.example`, 553, 0, ""},
			{bob, `"' or '1'='1"@box.example`, 553, 0, ""},
		},
	}.run(t)
}

// fill runs a script on an SQLite file.
func fill(t *testing.T, path, script string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), script); err != nil {
		t.Fatal(err)
	}
}

func TestMySQLSite(t *testing.T) {
	t.Parallel()
	checkReadme(t, "mysql")
	postfixtest.Require(t)
	dir := openDir(t)
	m := backendtest.NewMariaDB(t, readFile(t, exampleFile(t, dir, "mysql/tables.sql")))
	m.Exec("INSERT INTO cacertusers.user (username, password) VALUES ('eve', 'x')")
	m.Exec("INSERT INTO cacertusers.aliases VALUES ('eve@cacert.example', 'ann', 1)")
	owners := exampleFile(t, dir, "mysql/mysql-owners.cf", "/run/mysqld/mysqld.sock", m.Socket)
	users := exampleFile(t, dir, "mysql/mysql-users.cf", "/run/mysqld/mysqld.sock", m.Socket)
	backendSite{
		dir: dir, maps: []string{"mysql:" + owners, "mysql:" + users}, logins: []string{"ann", "bob", "eve"},
		config: exampleFile(t, dir, "mysql/policyd.toml", "/etc/postfix/mysql-owners.cf", owners, "/etc/postfix/mysql-users.cf", users),
		verdict: []verdict{
			{"ann", "ann@cacert.example", 250, 0, ""},
			{"ann", "pr@cacert.example", 250, 0, ""},
			{"bob", "pr@cacert.example", 553, 0, ""},
			{"bob", "board@cacert.example", 250, 0, ""},
			{"ann", "board@cacert.example", 250, 0, ""},
			{"bob", "old@cacert.example", 553, 0, ""},
			{"bob", "x@events.example", 250, 0, ""},
			{"ann", "x@events.example", 553, 0, ""},
			{"ann", "bob@cacert.example", 553, 0, ""},
			{"ann", "ann@elsewhere.example", 553, 0, ""},
			{"ann", "o'hara@cacert.example", 553, 0, ""},
			{"ann", `"'; drop table user; --"@x`, 553, 0, ""},
			{"ann", `"\\' or 1=1 -- "@cacert.example`, 553, 0, ""},
			{"ann", "ANN@CACERT.example", 250, 0, ""},
			{"ann", "eve@cacert.example", 250, 0, ""},
			{"eve", "eve@cacert.example", 553, 0, "the first table that lists the sender decides"},
		},
	}.run(t)
}

func TestGOsaSite(t *testing.T) {
	t.Parallel()
	checkReadme(t, "ldap-gosa")
	postfixtest.Require(t)
	dir := openDir(t)
	schema := readFile(t, exampleFile(t, dir, "ldap-gosa/gosa.schema"))
	s := backendtest.NewSlapd(t, backendtest.SlapdConfig{
		Suffix: "dc=site,dc=example", Schema: []string{schema}, LDIF: readFile(t, exampleFile(t, dir, "ldap-gosa/directory.ldif")), RequireTLS: true,
	})
	// The authority must be readable by Postfix too.
	maps := exampleFile(t, dir, "ldap-gosa/ldap_logins.cf", "ldap://ldap.site.example", "ldap://"+s.Addr, "/etc/ssl/certs/site-ca.pem", s.Authority)
	ann, bob := "ann@site.example", "bob@site.example"
	backendSite{
		dir: dir, maps: []string{"ldap:" + maps}, logins: []string{ann, bob, "eve@site.example"},
		config: exampleFile(t, dir, "ldap-gosa/policyd.toml", "/etc/postfix/ldap_logins.cf", maps),
		verdict: []verdict{
			{ann, ann, 250, 0, ""},
			{ann, "pr@site.example", 250, 0, ""},
			{bob, "pr@site.example", 553, 0, ""},
			{bob, "info@site.example", 250, 0, ""},
			{"eve@site.example", "eve@site.example", 553, 0, "no mail account"},
			{bob, `"*)(uid=*"@site.example`, 553, 0, ""},
			{bob, "*@site.example", 553, 0, ""},
			{ann, "ANN@site.example", 250, 0, ""},
		},
	}.run(t)
}

func TestPostgreSQLSite(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	dir := openDir(t)
	p := backendtest.NewPostgreSQL(t,
		"CREATE TABLE owners (sender text, login text); INSERT INTO owners VALUES ('pr@x.example', 'ann@x.example'), ('@all.example', 'bob@x.example')",
		"CREATE ROLE postfix LOGIN PASSWORD 'secret'; GRANT SELECT ON owners TO postfix")
	maps := "pgsql:" + writeFile(t, dir, "owners.cf", "hosts = inet:"+p.Addr+"\nuser = postfix\npassword = secret\ndbname = postgres\nquery = SELECT login FROM owners WHERE sender = '%s'\n")
	ownersSite(dir, maps).run(t)
}

func TestSocketmapSite(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serveOwners(l)
	site := ownersSite(openDir(t), "socketmap:inet:"+l.Addr().String()+":owners")
	for i, v := range site.verdict {
		if strings.HasSuffix(v.from, "all.example") {
			site.verdict[i].postfix = 553 // partial keys are not asked for
		}
	}
	site.run(t)
}

// ownersSite is a table of two entries, whatever server holds it.
func ownersSite(dir, maps string) backendSite {
	ann, bob := "ann@x.example", "bob@x.example"
	return backendSite{
		dir: dir, maps: []string{maps}, args: []string{"--owners", maps, "--owner-self=false"}, logins: []string{ann, bob},
		verdict: []verdict{
			{ann, "pr@x.example", 250, 0, ""},
			{bob, "pr@x.example", 553, 0, ""},
			{bob, "who@all.example", 250, 0, ""},
			{ann, "who@all.example", 553, 0, ""},
			{ann, ann, 553, 0, "owner-self is off"},
			{ann, `"' or '1'='1"@x.example`, 553, 0, ""},
			{ann, `"a\\' or 1=1 --"@x.example`, 553, 0, ""},
		},
	}
}

// serveOwners is a socketmap server that knows one sender.
func serveOwners(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go answerOwners(c)
	}
}

func answerOwners(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		var n int
		if _, err := fmt.Fscanf(in, "%d:", &n); err != nil {
			return
		}
		request := make([]byte, n+1)
		if _, err := io.ReadFull(in, request); err != nil {
			return
		}
		reply := "NOTFOUND "
		if string(request[:n]) == "owners pr@x.example" {
			reply = "OK ann@x.example"
		}
		if _, err := fmt.Fprintf(c, "%d:%s,", len(reply), reply); err != nil {
			return
		}
	}
}

// TestOwnersServerGone asserts what a user sees while the database is away, and
// that its return needs no restart: the rule of --owners-on-error, and one record
// for each change.
func TestOwnersServerGone(t *testing.T) {
	postfixtest.Require(t)
	dir := openDir(t)
	m := backendtest.NewMariaDB(t, readFile(t, exampleFile(t, dir, "mysql/tables.sql")))
	maps := exampleFile(t, dir, "mysql/mysql-owners.cf", "/run/mysqld/mysqld.sock", m.Socket)
	log := filepath.Join(dir, "policyd.log")
	s := newSite(t, SiteConfig{Policyd: []string{
		"--owners", "mysql:" + maps, "--login-domain", "home.example", "--log-file", log,
		"--owners-cache-ttl", "0s", "--owners-cache-negative-ttl", "0s", "--owners-last-known", "0s",
	}})
	m.Exec("INSERT INTO cacertusers.aliases VALUES ('gone@home.example', 'alice', 1);\n")
	mail := As(Alice, "gone@home.example", Dora)
	expect(t, s, postfixtest.Submission, mail, 250)
	m.Kill()
	const down, up = "the servers of a table do not answer", "the servers of a table answer again"
	for !strings.Contains(readFile(t, log), down) {
		if got := send(t, s, postfixtest.Submission, mail); got.Code != 451 && got.Code != 450 {
			t.Fatalf("without the server: %s", got)
		}
	}
	// What another table grants needs no server.
	expect(t, s, postfixtest.Submission, As(Alice, Press, Dora), 250)
	m.Start()
	for got := send(t, s, postfixtest.Submission, mail); got.Code != 250; got = send(t, s, postfixtest.Submission, mail) {
		if got.Code != 451 && got.Code != 450 {
			t.Fatalf("until the server is back: %s", got)
		}
	}
	text := readFile(t, log)
	for ; !strings.Contains(text, up) && t.Context().Err() == nil; text = readFile(t, log) { // lines reach the file a moment later
		runtime.Gosched()
	}
	if strings.Count(text, down) != 1 || strings.Count(text, up) != 1 {
		t.Errorf("told %d times that the server is gone, %d times that it is back", strings.Count(text, down), strings.Count(text, up))
	}
}
