package soak

import (
	"flag"
	"os"
	"os/signal"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/postfixtest/backendtest"
)

var (
	span = flag.Duration("for", 100*time.Second, "how `long` the load and the faults last; each fault is caused at least once")
	seed = flag.Uint64("seed", 1, "of the order of the faults")
)

// TestSoak is "make soak", for a short time.
func TestSoak(t *testing.T) {
	postfixtest.Require(t)
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := soak(ctx, *span, *seed, startServers(t), t.Output()); err != nil {
		t.Error(err)
	}
}

// startServers starts the servers of tables. They end with the test.
func startServers(t *testing.T) []*tableServer {
	const query = "query = SELECT login FROM owners WHERE sender = '%s'\n"
	m := backendtest.NewMariaDB(t, "CREATE DATABASE mail;\nCREATE TABLE mail.owners (sender VARCHAR(255), login VARCHAR(255));\n"+
		"INSERT INTO mail.owners VALUES ('mysql@home.example', 'dave');\nCREATE USER postfix@'127.0.0.1' IDENTIFIED BY 'secret';\nGRANT SELECT ON mail.* TO postfix@'127.0.0.1';\n")
	p := backendtest.NewPostgreSQL(t, "CREATE TABLE owners (sender text, login text); INSERT INTO owners VALUES ('pgsql@home.example', 'dave')",
		"CREATE ROLE postfix LOGIN PASSWORD 'secret'; GRANT SELECT ON owners TO postfix")
	const suffix = "dc=home,dc=example"
	l := backendtest.NewSlapd(t, backendtest.SlapdConfig{Suffix: suffix, LDIF: "dn: " + suffix + "\nobjectClass: dcObject\nobjectClass: organization\ndc: home\no: home\n\n" +
		"dn: cn=dave," + suffix + "\nobjectClass: inetOrgPerson\ncn: dave\nsn: dave\nmail: ldap@home.example\nuid: dave\n\n"})
	return []*tableServer{
		{name: "MariaDB", mapType: "mysql", server: m, text: "hosts = " + m.Addr + "\nuser = postfix\npassword = secret\ndbname = mail\n" + query},
		{name: "PostgreSQL", mapType: "pgsql", server: p, text: "hosts = " + p.Addr + "\nuser = postfix\npassword = secret\ndbname = postgres\n" + query},
		{name: "OpenLDAP", mapType: "ldap", server: l, text: "server_host = ldap://" + l.Addr + "\nversion = 3\nsearch_base = " + suffix + "\nbind_dn = cn=admin," + suffix +
			"\nbind_pw = " + backendtest.RootPassword + "\nquery_filter = (mail=%s)\nresult_attribute = uid\n"},
	}
}
