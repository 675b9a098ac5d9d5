package postmap

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postfixtest/backendtest"
)

// owned is the one ownership table that every type of server is given.
var owned = [][2]string{
	{"ann@x.example", "ann"},
	{"pr@x.example", "ann@x.example"},
	{"pr@x.example", "bob@x.example"},
	{"@all.example", "boss@x.example"},
	{"o'hara@x.example", "ohara@x.example"},
	{`back\slash@x.example`, "slash@x.example"},
	{"jürgen@x.example", "juergen@x.example"},
	{"per%cent@x.example", "percent@x.example"},
	{"under_score@x.example", "score@x.example"},
	{"star*@x.example", "star@x.example"},
	{"paren(s)@x.example", "paren@x.example"},
	{"bare", "bare@x.example"},
	{"empty@x.example", ""},
	{"list@deep.sub.x.example", "one@x.example, two@x.example"},
}

// askedKeys are those of the table and what an attacker might send.
func askedKeys() []string {
	keys := []string{
		"ANN@X.EXAMPLE", "nobody@x.example", "x@all.example", "@x.example", "user@", "@", "%", "_", "a_n@x.example", "%@x.example",
		`'; drop table user; --@x`, `'; DROP TABLE owners; --@x.example`, `" or ""="@x.example`, `' or '1'='1`, `*)(uid=*`, `*)(mail=*@x.example`, "*", "(", ")", `\`, `\'`, `\27 or 1=1`,
		"a,b@x.example", "ann@x.example'", "a@b@x.example", "ü@ü.example", "%s", "%u@%d", "$1", "?", ":a", strings.Repeat("a", 10_000) + "@x.example",
	}
	for _, row := range owned {
		keys = append(keys, row[0])
	}
	return keys
}

// sqlForms are table files without the lines that name the server. t is a
// table with the columns sender and login.
var sqlForms = map[string]string{
	"plain":         "query = SELECT login FROM owners WHERE sender = '%s'\n",
	"continued":     "# a comment\nquery = SELECT login\n  # in between\n  FROM owners\n\n\tWHERE sender='%s' ORDER BY login;\n",
	"parts":         "query = SELECT login FROM owners WHERE sender = '%u@%d'\n",
	"upper parts":   "query = SELECT login FROM owners WHERE sender = '%U@%D' OR sender = '%S'\n",
	"labels":        "query = SELECT login FROM owners WHERE sender = '%u@%2.%1'\n",
	"three labels":  "query = SELECT login FROM owners WHERE sender = '%u@deep.%3.%2.%1'\n",
	"user only":     "query = SELECT login FROM owners WHERE sender = '%u'\n",
	"like":          "query = SELECT login FROM owners WHERE sender LIKE '%%%s'\n",
	"percent":       "query = SELECT '100%%' FROM owners WHERE sender = '%s'\n",
	"quote inside":  "query = SELECT login FROM owners WHERE sender = 'o''%s' OR sender = '%s'\n",
	"echo":          "query = SELECT '<%s>' FROM owners WHERE sender = 'ann@x.example'\n",
	"legacy":        "table = owners\nselect_field = login\nwhere_field = sender\nadditional_conditions = AND login <> 'bob@x.example'\n",
	"legacy no add": "table = owners\nselect_field = login\nwhere_field = sender\n",
	"format":        "query = SELECT login FROM owners WHERE sender = '%s'\nresult_format = %u+%d+%s+%S+%U\n",
	"format labels": "query = SELECT login FROM owners WHERE sender = '%s'\nresult_format = %s %2 %D %%\n",
	"format user":   "query = SELECT login FROM owners WHERE sender = '%s'\nresult_format = %u\n",
	"format domain": "query = SELECT login FROM owners WHERE sender = '%s'\nresult_format = %d\n",
	"domain":        "query = SELECT login FROM owners WHERE sender = '%s'\ndomain = X.example, inline:{all.example=yes}\n",
	"not domain":    "query = SELECT login FROM owners WHERE sender = '%s'\ndomain = !deep.sub.x.example, static:all\n",
	"limit":         "query = SELECT login FROM owners WHERE sender = '%s'\nexpansion_limit = 2\n",
	"overridden":    "query = SELECT 'wrong'\nquery = SELECT login FROM owners WHERE sender = '%s'\nunknown = x\n",
	"null":          "query = SELECT NULL UNION ALL SELECT login FROM owners WHERE sender = '%s'\n",
	"number":        "query = SELECT 42 FROM owners WHERE sender = '%s'\n",
}

// only names the forms that one type has beside the common ones.
var only = map[string]map[string]string{
	"mysql": {
		"columns":        "query = SELECT login, sender FROM owners WHERE sender = '%s'\n",
		"procedure":      "query = CALL owner_of('%s')\n",
		"double quotes":  "query = SELECT login FROM owners WHERE sender = \"%s\"\n",
		"backslashes":    `query = SELECT login FROM owners WHERE sender = 'o\'hara@%d' OR sender = '%s'` + "\n",
		"old_no_result":  "query = CALL nothing('%s')\nrequire_result_set = no\n",
		"like backslash": "query = SELECT login FROM owners WHERE sender LIKE '%s'\n",
	},
	"pgsql": {
		"columns":  "query = SELECT login, sender FROM owners WHERE sender = '%s'\n",
		"function": "select_function = owner_of\n",
		"dollar":   "query = SELECT login FROM owners WHERE sender = '%s' AND login <> $$bob@x.example$$\n",
	},
	"sqlite": {
		"one column":  "query = SELECT login, sender FROM owners WHERE sender = '%s'\n",
		"identifiers": "query = SELECT \"login\" FROM [owners] WHERE `sender` = '%s' -- the owner\n",
	},
}

func values() string {
	rows := make([]string, len(owned))
	for i, row := range owned {
		rows[i] = fmt.Sprintf("('%s', '%s')", strings.ReplaceAll(row[0], "'", "''"), row[1])
	}
	return strings.Join(rows, ", ")
}

// compareForms asks postmap and our source the same keys of every form.
func compareForms(t *testing.T, mapType, server string, keys []string, skip ...string) {
	t.Helper()
	p := newPostmap(t)
	all := map[string]string{}
	for _, forms := range []map[string]string{sqlForms, only[mapType]} {
		for name, text := range forms {
			all[name] = text
		}
	}
	for name, text := range all {
		t.Run(name, func(t *testing.T) {
			p.compareAsked(t, mapType+":"+file(t, "owners.cf", server+text), keys)
		})
	}
}

// compareAsked is compare for tables that may list none of the keys.
func (p postmap) compareAsked(t *testing.T, spec string, keys []string) {
	t.Helper()
	table, err := Open(spec, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := table.Source.Close(); err != nil {
			t.Error(err)
		}
	}()
	found := 0
	for line, err := range p.each(t, spec, keys) {
		ask := line.key
		if !table.Pattern {
			ask = mailaddr.Fold(ask) // as Postfix does before it asks
		}
		got, gotErr := table.Source.Lookup(t.Context(), ask)
		switch {
		case err != nil && gotErr == nil:
			t.Errorf("%.80q: postmap fails, we give %q", line.key, got)
		case err == nil && gotErr != nil:
			t.Errorf("%.80q: %v, postmap gives %q", line.key, gotErr, line.value)
		case strings.Join(got, ",") != line.value:
			t.Errorf("%.80q: got %.200q, want %.200q", line.key, got, line.value)
		}
		if line.value != "" {
			found++
		}
	}
	if found == 0 && !strings.Contains(t.Name(), "no_result") {
		t.Error("no key was found: nothing was compared")
	}
}

func TestMySQLAgainstPostmap(t *testing.T) {
	m := backendtest.NewMariaDB(t,
		"CREATE DATABASE mail CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\nUSE mail;\nCREATE TABLE owners (sender VARCHAR(255), login VARCHAR(255));\n",
		"INSERT INTO mail.owners VALUES "+strings.ReplaceAll(values(), `\`, `\\`)+";\n",
		"CREATE PROCEDURE mail.owner_of(IN a VARCHAR(255)) READS SQL DATA SELECT login FROM mail.owners WHERE sender = a;\n",
		"CREATE PROCEDURE mail.nothing(IN a VARCHAR(255)) READS SQL DATA SET @x = 1;\n",
		"CREATE USER postfix@localhost IDENTIFIED BY 'it''s secret';\nCREATE USER postfix@'127.0.0.1' IDENTIFIED BY 'it''s secret';\n",
		"GRANT SELECT, EXECUTE ON mail.* TO postfix@localhost;\nGRANT SELECT, EXECUTE ON mail.* TO postfix@'127.0.0.1';\n")
	login := "user = postfix\npassword = it's secret\ndbname = mail\n"
	t.Run("unix", func(t *testing.T) { compareForms(t, "mysql", "hosts = unix:"+m.Socket+"\n"+login, askedKeys()) })
	t.Run("inet", func(t *testing.T) {
		newPostmap(t).compareAsked(t, "mysql:"+file(t, "owners.cf", "hosts = inet:"+m.Addr+"\n"+login+sqlForms["plain"]), askedKeys())
	})
	t.Run("failover", func(t *testing.T) {
		newPostmap(t).compareAsked(t, "mysql:"+file(t, "owners.cf", "hosts = unix:/nowhere/s, 127.0.0.1:1 "+m.Addr+"\n"+login+sqlForms["plain"]), askedKeys())
	})
	t.Run("option file", func(t *testing.T) {
		options := file(t, "my.cnf", "[other]\nuser=wrong\n[client]\nuser = nobody\n[postern]\nuser = \"postfix\" \n")
		newPostmap(t).compareAsked(t, "mysql:"+file(t, "owners.cf", "option_file = "+options+"\noption_group = postern\npassword = it's secret\ndbname = mail\nhosts = unix:"+m.Socket+"\n"+sqlForms["plain"]), askedKeys())
	})
}

func TestPostgreSQLAgainstPostmap(t *testing.T) {
	p := backendtest.NewPostgreSQL(t,
		"CREATE TABLE owners (sender text, login text)",
		"INSERT INTO owners VALUES "+values(),
		"CREATE FUNCTION owner_of(a text) RETURNS SETOF text LANGUAGE sql AS 'SELECT login FROM owners WHERE sender = a'",
		"CREATE ROLE postfix LOGIN PASSWORD 'it''s \\ secret'; GRANT SELECT ON owners TO postfix")
	login := "user = postfix\npassword = it's \\ secret\ndbname = postgres\n"
	// Postfix before 3.8 declares to the server that its UTF-8 was LATIN1, and finds no
	// such key; what we find is asserted in TestServerTrouble.
	keys := slices.DeleteFunc(askedKeys(), func(key string) bool { return strings.ContainsFunc(key, func(r rune) bool { return r > 0x7f }) })
	compareForms(t, "pgsql", "hosts = inet:"+p.Addr+"\n"+login, keys)
	t.Run("failover", func(t *testing.T) {
		newPostmap(t).compareAsked(t, "pgsql:"+file(t, "owners.cf", "hosts = unix:/nowhere 127.0.0.1:1 "+p.Addr+"\n"+login+sqlForms["plain"]), keys)
	})
	t.Run("uri", func(t *testing.T) {
		newPostmap(t).compareAsked(t, "pgsql:"+file(t, "owners.cf", "hosts = postgresql://postfix:it's%20%5C%20secret@"+p.Addr+"/postgres\ndbname = postgres\n"+sqlForms["plain"]), keys)
	})
}

func TestSQLiteAgainstPostmap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "owners.sqlite")
	fillSQLite(t, path, "CREATE TABLE owners (sender TEXT, login TEXT)", "INSERT INTO owners VALUES "+values())
	compareForms(t, "sqlite", "dbpath = "+path+"\n", askedKeys())
}

// TestSQLiteDoubleQuotes holds what Postfix gets wrong: it escapes for single
// quotes only, so that a key with a quote never matches in double ones.
func TestSQLiteDoubleQuotes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "owners.sqlite")
	fillSQLite(t, path, "CREATE TABLE owners (sender TEXT, login TEXT)", "INSERT INTO owners VALUES "+values())
	table, err := Open("sqlite:"+file(t, "owners.cf", "dbpath = "+path+"\nquery = SELECT login FROM owners WHERE sender = \"%s\"\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Source.Close()
	for key, want := range map[string]string{"o'hara@x.example": "ohara@x.example", "ann@x.example": "ann", `x" or 1=1 --`: "", "login": ""} {
		got, err := table.Source.Lookup(t.Context(), key)
		if err != nil || strings.Join(got, ",") != want {
			t.Errorf("%q: got %q, %v, want %q", key, got, err, want)
		}
	}
}

func fillSQLite(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

const suffix = "dc=site,dc=example"

// ldif is the ownership table as a directory. References: the group has members,
// itself included, and a URL.
func ldif() string {
	var b strings.Builder
	b.WriteString("dn: " + suffix + "\nobjectClass: dcObject\nobjectClass: organization\ndc: site\no: site\n\n")
	b.WriteString("dn: ou=x.example," + suffix + "\nobjectClass: organizationalUnit\nou: x.example\n\n")
	for i, row := range owned {
		fmt.Fprintf(&b, "dn: cn=e%d,ou=x.example,%s\nobjectClass: inetOrgPerson\ncn: e%d\nsn: e\nmail: %s\n", i, suffix, i, row[0])
		if row[1] != "" {
			fmt.Fprintf(&b, "employeeNumber: %s\n", row[1])
		}
		b.WriteString("\n")
	}
	member := func(n int) string { return "cn=e" + strconv.Itoa(n) + ",ou=x.example," + suffix }
	fmt.Fprintf(&b, "dn: cn=group,%s\nobjectClass: inetOrgPerson\ncn: group\nsn: g\nmail: group@x.example\nemployeeNumber: leaf-of-group\nseeAlso: %s\nseeAlso: %s\nseeAlso: cn=gone,%s\n\n", suffix, member(0), member(4), suffix)
	fmt.Fprintf(&b, "dn: cn=term,%s\nobjectClass: inetOrgPerson\ncn: term\nsn: g\nmail: term@x.example\nemployeeType: terminal\nemployeeNumber: other\nseeAlso: %s\n\n", suffix, member(0))
	fmt.Fprintf(&b, "dn: cn=loop,%s\nobjectClass: inetOrgPerson\ncn: loop\nsn: g\nmail: loop@x.example\nemployeeNumber: looped\nseeAlso: cn=loop,%s\n\n", suffix, suffix)
	fmt.Fprintf(&b, "dn: cn=dynamic,%s\nobjectClass: inetOrgPerson\nobjectClass: labeledURIObject\ncn: dynamic\nsn: g\nmail: dynamic@x.example\nlabeledURI: ldap:///ou=x.example,%s?employeeNumber?one?(mail=pr@x.example)\n\n", suffix, strings.ReplaceAll(suffix, " ", "%20"))
	return b.String()
}

func TestLDAPAgainstPostmap(t *testing.T) {
	s := backendtest.NewSlapd(t, backendtest.SlapdConfig{Suffix: suffix, LDIF: ldif()})
	p := newPostmap(t)
	base := "search_base = " + suffix + "\nbind_dn = cn=admin," + suffix + "\nbind_pw = " + backendtest.RootPassword + "\nversion = 3\n"
	plain := "query_filter = (mail=%s)\nresult_attribute = employeeNumber\n"
	server := "server_host = ldap://" + s.Addr + "\n"
	tls := "start_tls = yes\ntls_ca_cert_file = " + s.Authority + "\ntls_require_cert = yes\n"
	keys := append(askedKeys(), "group@x.example", "term@x.example", "dynamic@x.example")
	for name, text := range map[string]string{
		"plain":        server + base + plain,
		"host":         "server_host = " + s.Host() + "\nserver_port = " + s.Port() + "\n" + base + plain,
		"host port":    "server_host = " + s.Addr + "\n" + base + plain,
		"ldapi":        "server_host = ldapi://" + strings.ReplaceAll(s.Socket, "/", "%2F") + "\n" + base + plain,
		"failover":     "server_host = ldap://127.0.0.1:1 ldap://" + s.Addr + "\n" + base + plain,
		"start_tls":    server + base + plain + tls,
		"anonymous":    server + "search_base = " + suffix + "\nversion = 3\nbind = no\n" + plain,
		"spaced":       server + base + "query_filter = ( & (objectClass=inetOrgPerson)\n   ( | (mail=%s) (cn=%u) ) )\nresult_attribute = employeeNumber\n",
		"no brackets":  server + base + "query_filter = mail=%s\nresult_attribute = employeeNumber, sn\n",
		"parts":        server + base + "query_filter = (mail=%u@%d)\nresult_attribute = employeeNumber\n",
		"base by key":  server + strings.Replace(base, "search_base = ", "search_base = ou=%d,", 1) + plain,
		"scope base":   server + strings.Replace(base, "search_base = ", "search_base = cn=group,", 1) + "scope = base\n" + plain,
		"scope one":    server + base + "scope = one\n" + plain,
		"format":       server + base + plain + "result_format = %u=%D\n",
		"old format":   server + base + plain + "result_filter = <%s>\n",
		"domain":       server + base + plain + "domain = x.example\n",
		"limit":        server + base + "query_filter = (mail=%s)\nresult_attribute = employeeNumber, mail\nexpansion_limit = 1\n",
		"special":      server + base + plain + "special_result_attribute = seeAlso labeledURI\n",
		"leaf":         server + base + "query_filter = (mail=%s)\nresult_attribute = \nleaf_result_attribute = employeeNumber\nspecial_result_attribute = seeAlso, labeledURI\n",
		"terminal":     server + base + plain + "terminal_result_attribute = employeeType\nspecial_result_attribute = seeAlso\n",
		"recursion":    server + base + plain + "special_result_attribute = seeAlso\nrecursion_limit = 1\n",
		"dereference":  server + base + plain + "dereference = 3\n",
		"several same": server + base + "query_filter = (|(mail=%s)(mail=pr@%d))\nresult_attribute = employeeNumber\nsize_limit = 2\n",
	} {
		t.Run(name, func(t *testing.T) { p.compareAsked(t, "ldap:"+file(t, "owners.cf", text), keys) })
	}
	t.Run("loop", func(t *testing.T) {
		table, err := Open("ldap:"+file(t, "owners.cf", server+base+plain+"special_result_attribute = seeAlso\n"), Options{})
		if err != nil {
			t.Fatal(err)
		}
		// Postfix gives up after recursion_limit; a group in itself adds nothing.
		got, err := table.Source.Lookup(t.Context(), "loop@x.example")
		if err != nil || len(got) == 0 || got[0] != "looped" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestSocketmapAgainstPostmap(t *testing.T) {
	dir, err := os.MkdirTemp("", "postern-sm-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, network := range []string{"tcp", "unix"} {
		address := map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(dir, "s")}[network]
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go serveSocketmap(l)
		spec := "socketmap:inet:" + l.Addr().String() + ":owners"
		if network == "unix" {
			spec = "socketmap:unix:" + address + ":owners"
		}
		t.Run(network, func(t *testing.T) {
			keys := append(askedKeys(), "temp@x.example", "timeout@x.example", "perm@x.example", "strange@x.example")
			newPostmap(t).compareAsked(t, spec, keys)
		})
	}
}

// serveSocketmap serves the ownership table, and failures by name.
func serveSocketmap(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			in := bufio.NewReader(c)
			for {
				length, err := in.ReadString(':')
				if err != nil {
					return
				}
				n, _ := strconv.Atoi(strings.TrimSuffix(length, ":"))
				data := make([]byte, n+1)
				for read := 0; read < len(data); {
					m, err := in.Read(data[read:])
					if err != nil {
						return
					}
					read += m
				}
				name, key, _ := strings.Cut(string(data[:n]), " ")
				reply := socketmapReply(name, key)
				fmt.Fprintf(c, "%d:%s,", len(reply), reply)
			}
		}()
	}
}

func socketmapReply(name, key string) string {
	switch user, _, _ := strings.Cut(key, "@"); {
	case name != "owners":
		return "PERM no such map"
	case user == "temp":
		return "TEMP come back"
	case user == "timeout":
		return "TIMEOUT slow"
	case user == "perm":
		return "PERM never"
	case user == "strange":
		return "WHAT"
	}
	var found []string
	for _, row := range owned {
		if row[0] == key && row[1] != "" {
			found = append(found, row[1])
		}
	}
	if len(found) == 0 {
		return "NOTFOUND "
	}
	return "OK " + strings.Join(found, ",")
}

// TestServerErrors holds that what a file asks for and cannot be done is an error
// when it is opened, which names it.
func TestServerErrors(t *testing.T) {
	db := filepath.Join(t.TempDir(), "x.sqlite")
	fillSQLite(t, db, "CREATE TABLE t (a, b)")
	good := "query = SELECT b FROM t WHERE a = '%s'\n"
	ldap := "search_base = dc=x\n"
	for _, c := range []struct{ mapType, text, want string }{
		{"sqlite", good, "dbpath: is missing"},
		{"sqlite", "dbpath = relative\n" + good, "relative path"},
		{"sqlite", "dbpath = /nowhere/x\n" + good, ":1: dbpath:"},
		{"sqlite", "dbpath = /etc/passwd\n" + good, "no SQLite database"},
		{"sqlite", "dbpath = " + db + "\n", "query: is missing"},
		{"sqlite", "dbpath = " + db + "\nquery = SELECT b FROM t WHERE a = %s\n", "%s is outside of quotes"},
		{"sqlite", "dbpath = " + db + "\nquery = SELECT %x\n", `no expansion is called "%x"`},
		{"sqlite", "dbpath = " + db + "\nresult_format = %q\n" + good, "result_format"},
		{"sqlite", "dbpath = " + db + "\nexpansion_limit = many\n" + good, "expansion_limit"},
		{"sqlite", "dbpath = " + db + "\ndomain = nosuch:x\n" + good, "map type"},
		{"sqlite", "dbpath = " + db + "\ndomain = /nowhere/list\n" + good, "no such file"},
		{"sqlite", "dbpath\n" + good, "no parameter"},
		{"mysql", "tls_ciphers = HIGH\n" + good, ":1: tls_ciphers: is not supported"},
		{"mysql", "tls_CAfile = /nowhere/ca\n" + good, "no such file"},
		{"mysql", "tls_cert_file = /nowhere/c\n" + good, "belong together"},
		{"mysql", "hosts = unix:relative\n" + good, "hosts"},
		{"mysql", "hosts = host:nosuchservice\n" + good, "hosts"},
		{"mysql", "require_result_set = perhaps\n" + good, "write yes or no"},
		{"mysql", "option_file = /nowhere/my.cnf\n" + good, "option_file"},
		{"mysql", "charset = no-such'charset\noption_group =\nidle_interval = 0\n" + good, "idle_interval"},
		{"pgsql", good, "needs dbname"},
		{"pgsql", "hosts = postgresql://u:geheim@[\n" + good, "cannot be understood"},
		{"ldap", "", "search_base: is missing"},
		{"ldap", ldap + "query_filter = (&(a=%s)\n", "query_filter"},
		{"ldap", ldap + "bind = sasl\nsasl_mechs = GSSAPI\n", "bind: sasl"},
		{"ldap", ldap + "bind = maybe\n", "bind"},
		{"ldap", ldap + "chase_referrals = yes\n", "chase_referrals: is not supported"},
		{"ldap", ldap + "tls_cipher_suite = HIGH\n", "tls_cipher_suite: is not supported"},
		{"ldap", ldap + "scope = children\n", "scope"},
		{"ldap", ldap + "version = 4\n", "version"},
		{"ldap", ldap + "recursion_limit = 0\n", "recursion_limit"},
		{"ldap", ldap + "start_tls = yes\nserver_host = ldaps://x\n", "start_tls: cannot be had"},
		{"ldap", ldap + "tls_ca_cert_file = /nowhere/ca.pem\n", "no such file"},
		{"ldap", ldap + "server_host = ldap://\n", "server_host"},
	} {
		_, err := Open(c.mapType+":"+file(t, "owners.cf", c.text), Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s %q: %v, want %q", c.mapType, c.text, err, c.want)
		}
		// Whether a start is tried again depends on the cause.
		if strings.Contains(c.text, "/nowhere/") && c.want != "belong together" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s %q: %v has lost its cause", c.mapType, c.text, err)
		}
	}
	for _, spec := range []string{"mysql:named", "socketmap:inet:h:1", "socketmap:unix:relative:n", "socketmap:tcp:h:1:n", "socketmap:inet::1:n"} {
		if _, err := Open(spec, Options{}); err == nil {
			t.Errorf("%s: opened", spec)
		}
	}
}

func TestWarnings(t *testing.T) {
	var heard []string
	o := Options{Warn: func(text string) { heard = append(heard, text) }}
	path := file(t, "owners.cf", "search_base = dc=x\nversion = 2\ncache = yes\ntls_random_file = /dev/random\nqery_filter = x\ndomain = x.example\n")
	table, err := Open("ldap:"+path, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Source.Close(); err != nil {
		t.Error(err)
	}
	all := strings.Join(heard, "\n")
	for _, want := range []string{path + ":2: version", path + ":3: cache", path + ":4: tls_random_file", path + ":5: qery_filter: is no parameter"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning %q in %s", want, all)
		}
	}
	if strings.Contains(all, "domain") {
		t.Errorf("a warning of a parameter that counts: %s", all)
	}
}
