package backendtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// Slapd is a private OpenLDAP server. It offers StartTLS with a certificate for
// "localhost" and 127.0.0.1 that Authority has issued.
type Slapd struct {
	*Server
	Authority  string // file of the authority's certificate
	SecureAddr string // 127.0.0.1:port where TLS begins with the first octet
	suffix     string
}

// RootPassword is the password of cn=admin,SUFFIX.
const RootPassword = "admin-secret"

// SlapdConfig describes a directory.
type SlapdConfig struct {
	Suffix string   // "dc=site,dc=example"
	Schema []string // further slapd.conf lines, attributetype and objectclass
	LDIF   string   // the entries, including that of the suffix
	// RequireTLS makes the server refuse all operations without TLS except StartTLS.
	RequireTLS bool
	// RequireCertificate makes it refuse TLS clients without a certificate of its
	// authority.
	RequireCertificate bool
}

// NewSlapd starts a server.
func NewSlapd(tb testing.TB, c SlapdConfig) *Slapd {
	tb.Helper()
	daemon := tool(tb, "/usr/sbin/slapd")
	s := &Slapd{Server: newServer(tb, ""), suffix: c.Suffix}
	s.Socket = filepath.Join(s.Dir, "ldapi")
	s.Authority = writeCertificates(tb, s.Dir)
	var err error
	if s.SecureAddr, err = postfixtest.FreeAddr(); err != nil {
		tb.Fatal(err)
	}
	conf, ldif := filepath.Join(s.Dir, "slapd.conf"), filepath.Join(s.Dir, "entries.ldif")
	write(tb, conf, slapdConf(s.Dir, c))
	write(tb, ldif, c.LDIF)
	if err := os.Mkdir(filepath.Join(s.Dir, "data"), 0o700); err != nil {
		tb.Fatal(err)
	}
	run(tb, exec.Command(tool(tb, "/usr/sbin/slapadd"), "-q", "-f", conf, "-l", ldif))
	s.command = func() *exec.Cmd {
		return exec.Command(daemon, "-d", "0", "-f", conf, "-h", "ldap://"+s.Addr+" ldaps://"+s.SecureAddr+" ldapi://"+url.PathEscape(s.Socket))
	}
	s.ready = s.ping
	s.Start()
	return s
}

func slapdConf(dir string, c SlapdConfig) string {
	lines := []string{"modulepath /usr/lib/ldap", "moduleload back_mdb"}
	for _, name := range []string{"core", "cosine", "nis", "inetorgperson"} {
		lines = append(lines, "include /etc/ldap/schema/"+name+".schema")
	}
	lines = append(lines, c.Schema...)
	lines = append(lines,
		"pidfile "+dir+"/pid",
		"TLSCACertificateFile "+dir+"/ca.pem", "TLSCertificateFile "+dir+"/cert.pem", "TLSCertificateKeyFile "+dir+"/key.pem")
	if c.RequireTLS {
		lines = append(lines, "security tls=1", "localSSF 128")
	}
	if c.RequireCertificate {
		lines = append(lines, "TLSVerifyClient demand")
	}
	lines = append(lines,
		"database mdb", "maxsize 67108864", "suffix \""+c.Suffix+"\"", "rootdn \"cn=admin,"+c.Suffix+"\"", "rootpw "+RootPassword, "directory "+dir+"/data",
		"index objectClass,mail eq")
	return strings.Join(lines, "\n") + "\n"
}

func (s *Slapd) ping(ctx context.Context) error {
	conn, err := s.dial()
	if err != nil {
		return err
	}
	return conn.Close()
}

func (s *Slapd) dial() (*ldap.Conn, error) {
	return ldap.DialURL("ldapi://" + s.Socket)
}

// Modify calls change with a connection of the directory's administrator.
func (s *Slapd) Modify(change func(*ldap.Conn) error) {
	s.tb.Helper()
	conn, err := s.dial()
	if err != nil {
		s.tb.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Bind("cn=admin,"+s.suffix, RootPassword); err != nil {
		s.tb.Fatal(err)
	}
	if err := change(conn); err != nil {
		s.tb.Fatal(fmt.Errorf("modify the directory: %w", err))
	}
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}
}
