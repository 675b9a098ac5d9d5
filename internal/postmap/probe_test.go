package postmap

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest/backendtest"
)

// A query that cannot work is found before any mail asks: at once in an SQLite file,
// by Probe in a server.
func TestTablesThatCannotWork(t *testing.T) {
	path := filepath.Join(t.TempDir(), "owners.sqlite")
	fillSQLite(t, path, "CREATE TABLE owners (sender TEXT, login TEXT)")
	for _, query := range []string{"SELECT nosuch FROM owners WHERE sender = '%s'", "SELECT login FROM nosuch WHERE sender = '%s'", "SELEC login FROM owners WHERE sender = '%s'", "SELECT login FROM owners WHERE sender = nosuch('%s')"} {
		_, err := Open("sqlite:"+file(t, "owners.cf", "dbpath = "+path+"\nquery = "+query+"\n"), Options{})
		if err == nil || !strings.Contains(err.Error(), "owners.cf:2: query: ") {
			t.Errorf("%s: %v", query, err)
		}
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go serveSocketmap(l)
	const deaf = "socketmap:inet:127.0.0.1:1:owners"

	p := backendtest.NewPostgreSQL(t, "CREATE TABLE owners (sender text, login text, id integer)", "CREATE ROLE postfix LOGIN PASSWORD 'secret'; GRANT SELECT ON owners TO postfix")
	const plain = "query = SELECT login FROM owners WHERE sender = '%s'\n"
	server := "hosts = inet:" + p.Addr + "\nuser = postfix\npassword = secret\ndbname = postgres\n"
	for query, works := range map[string]bool{
		"query = SELECT login FROM owners WHERE sender = '%s'\ndomain = x.example":    true,
		"query = SELECT login FROM owners WHERE sender = concat('%u', '@', '%d')":     true,
		"query = SELECT login FROM owners WHERE id = '%u'":                            true, // an error for this key only
		"query = SELECT nosuch FROM owners WHERE sender = '%s'":                       false,
		"query = SELECT nosuch FROM owners WHERE sender = '%s'\ndomain = x.example":   false,
		"query = SELECT login FROM pg_authid WHERE rolname = '%s'":                    false,
		plain + "domain = x.example, socketmap:inet:" + l.Addr().String() + ":owners": true,
		plain + "domain = x.example, " + deaf:                                         false,
		plain + "domain = unionmap:{static:x, " + deaf + "}":                          false,
	} {
		table, err := Open("unionmap:{static:x, pgsql:"+file(t, "owners.cf", server+query+"\n")+"}", Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Probe(t.Context()); (err == nil) != works {
			t.Errorf("%s: %v", query, err)
		}
		if err := table.Source.Close(); err != nil {
			t.Error(err)
		}
	}

	directory := "ldap:" + file(t, "directory.cf", "server_host = ldap://127.0.0.1:1\nsearch_base = dc=x\ndomain = x.example\n")
	for spec, works := range map[string]bool{"socketmap:inet:" + l.Addr().String() + ":owners": true, deaf: false, "static:x": true, directory: false} {
		table, err := Open(spec, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Probe(t.Context()); (err == nil) != works {
			t.Errorf("%s: %v", spec, err)
		}
		_ = table.Source.Close()
	}
}
