package postmap

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest/backendtest"
)

// tlsKeys are enough to see that a table answers.
var tlsKeys = []string{"ann@x.example", "nobody@x.example"}

// refused asserts that a table which cannot be connected to gives an error that
// says why, and no answer.
func refused(t *testing.T, spec string, want ...string) {
	t.Helper()
	table, err := Open(spec, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer table.Source.Close()
	got, err := table.Source.Lookup(t.Context(), "ann@x.example")
	if err == nil || len(got) != 0 {
		t.Fatalf("got %q, %v", got, err)
	}
	for _, text := range want {
		if strings.Contains(err.Error(), text) {
			return
		}
	}
	t.Errorf("%v, want one of %q", err, want)
}

// TestLDAPOverTLS has a directory that talks to clients with a certificate only.
func TestLDAPOverTLS(t *testing.T) {
	s := backendtest.NewSlapd(t, backendtest.SlapdConfig{Suffix: suffix, LDIF: ldif(), RequireTLS: true, RequireCertificate: true})
	cert, key := s.ClientCertificate()
	base := "search_base = " + suffix + "\nbind_dn = cn=admin," + suffix + "\nbind_pw = " + backendtest.RootPassword + "\nversion = 3\n" +
		"query_filter = (mail=%s)\nresult_attribute = employeeNumber\n"
	ldaps := "server_host = ldaps://" + s.SecureAddr + "\n" + base
	starts := "server_host = ldap://" + s.Addr + "\nstart_tls = yes\n" + base
	verified := "tls_ca_cert_file = " + s.Authority + "\ntls_require_cert = yes\n"
	ours := "tls_cert = " + cert + "\ntls_key = " + key + "\n"
	p := newPostmap(t)
	for name, text := range map[string]string{"ldaps": ldaps + verified + ours, "start_tls": starts + verified + ours} {
		t.Run(name, func(t *testing.T) { p.compareAsked(t, "ldap:"+file(t, "owners.cf", text), tlsKeys) })
	}
	other := "tls_ca_cert_file = " + backendtest.OtherAuthority(t) + "\ntls_require_cert = yes\n"
	for name, text := range map[string]string{
		"ldaps, no certificate of ours":     ldaps + verified,
		"start_tls, no certificate of ours": starts + verified,
		"ldaps, another authority":          ldaps + other + ours,
		"start_tls, another authority":      starts + other + ours,
		"in the clear":                      strings.Replace(starts, "start_tls = yes\n", "", 1),
	} {
		t.Run(name, func(t *testing.T) {
			// Under TLS 1.3 a server that misses our certificate hangs up after the
			// handshake; how we notice depends on who is first.
			refused(t, "ldap:"+file(t, "owners.cf", text), "certificate", "TLS", "Confidentiality", "EOF", "broken pipe", "reset by peer", "connection closed")
		})
	}
}

// TestMySQLOverTLS has users who may log in over TLS only, one of them with a
// certificate.
func TestMySQLOverTLS(t *testing.T) {
	m := backendtest.NewMariaDB(t, "CREATE DATABASE mail CHARACTER SET utf8mb4;\n"+
		"CREATE TABLE mail.owners (sender VARCHAR(255), login VARCHAR(255));\n"+
		"INSERT INTO mail.owners VALUES ('ann@x.example', 'ann');\n"+
		"CREATE USER 'veiled'@'%' IDENTIFIED BY 'secret' REQUIRE SSL;\nGRANT SELECT ON mail.* TO 'veiled'@'%';\n"+
		"CREATE USER 'known'@'%' IDENTIFIED BY 'secret' REQUIRE X509;\nGRANT SELECT ON mail.* TO 'known'@'%';\n")
	cert, key := m.ClientCertificate()
	base := "hosts = " + m.Addr + "\npassword = secret\ndbname = mail\nquery = SELECT login FROM owners WHERE sender = '%s'\n"
	veiled, known := base+"user = veiled\n", base+"user = known\n"
	verified := "tls_CAfile = " + m.Authority + "\n"
	ours := "tls_cert_file = " + cert + "\ntls_key_file = " + key + "\n"
	p := newPostmap(t)
	for name, text := range map[string]string{
		"chain":              veiled + verified,
		"certificate":        known + verified + ours,
		"chain and the name": veiled + verified + "tls_verify_cert = yes\n",
	} {
		t.Run(name, func(t *testing.T) { p.compareAsked(t, "mysql:"+file(t, "owners.cf", text), tlsKeys) })
	}
	for name, text := range map[string]string{
		"in the clear":           veiled,
		"no certificate of ours": known + verified,
		"another authority":      veiled + "tls_CAfile = " + backendtest.OtherAuthority(t) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, "mysql:"+file(t, "owners.cf", text), "certificate", "Access denied")
		})
	}
}

// TestMySQLAccounts has accounts that prove their password in another way than the usual one.
func TestMySQLAccounts(t *testing.T) {
	m := backendtest.NewMariaDB(t, "INSTALL SONAME 'auth_ed25519';\nINSTALL SONAME 'auth_pam';\nCREATE DATABASE mail CHARACTER SET utf8mb4;\n"+
		"CREATE TABLE mail.owners (sender VARCHAR(255), login VARCHAR(255));\n"+
		"INSERT INTO mail.owners VALUES ('ann@x.example', 'ann');\n"+
		"CREATE USER 'signs'@'%' IDENTIFIED VIA ed25519 USING PASSWORD('secret');\nGRANT SELECT ON mail.* TO 'signs'@'%';\n"+
		"CREATE USER 'local'@'localhost' IDENTIFIED VIA unix_socket OR ed25519 USING PASSWORD('secret');\nGRANT SELECT ON mail.* TO 'local'@'localhost';\n"+
		"CREATE USER 'pam'@'%' IDENTIFIED VIA pam USING 'other';\nGRANT SELECT ON mail.* TO 'pam'@'%';\n")
	base := "password = secret\ndbname = mail\nquery = SELECT login FROM owners WHERE sender = '%s'\n"
	p := newPostmap(t)
	for name, text := range map[string]string{
		"ed25519":        "user = signs\nhosts = " + m.Addr + "\n",
		"ed25519 in TLS": "user = signs\nhosts = " + m.Addr + "\ntls_CAfile = " + m.Authority + "\n",
		"a socket":       "user = local\nhosts = unix:" + m.Socket + "\n",
	} {
		t.Run(name, func(t *testing.T) { p.compareAsked(t, "mysql:"+file(t, "owners.cf", base+text), tlsKeys) })
	}
	refused(t, "mysql:"+file(t, "owners.cf", base+"user = pam\nhosts = "+m.Addr+"\n"), "have the account use ed25519")
}
