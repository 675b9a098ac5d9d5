package remote

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// issued is a certificate with its key, and the files that hold them.
type issued struct {
	cert              *x509.Certificate
	key               *ecdsa.PrivateKey
	certFile, keyFile string
}

// issue has a certificate signed by an authority, or by itself if there is none.
func issue(t *testing.T, dir, name string, by *issued) *issued {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: by == nil || name == "intermediate",
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &issued{cert, key,
		writePEM(t, filepath.Join(dir, name+".pem"), "CERTIFICATE", der),
		writePEM(t, filepath.Join(dir, name+".key"), "PRIVATE KEY", keyDER)}
}

func writePEM(t *testing.T, path, kind string, der []byte) string {
	t.Helper()
	writeFile(t, path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	return path
}

func writeFile(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (i *issued) pair(chain ...*issued) tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{i.cert.Raw}, PrivateKey: i.key}
	for _, link := range chain {
		c.Certificate = append(c.Certificate, link.cert.Raw)
	}
	return c
}

// shake lets a client of these files meet a server; the error is the client's.
// peer is the name in the certificate that the client has shown, "" for none.
func shake(t *testing.T, f TLSFiles, name string, server *tls.Config) (peer string, err error) {
	t.Helper()
	config, err := f.Config()
	if err != nil {
		t.Fatal(err)
	}
	config.ServerName = name
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan string)
	go func() {
		defer far.Close()
		defer close(done)
		conn := tls.Server(far, server)
		if conn.HandshakeContext(t.Context()) != nil {
			return
		}
		if certs := conn.ConnectionState().PeerCertificates; len(certs) > 0 {
			done <- certs[0].Subject.CommonName
		}
	}()
	err = tls.Client(near, config).HandshakeContext(t.Context())
	if err != nil {
		near.Close()
	}
	return <-done, err
}

func TestVerify(t *testing.T) {
	dir, folder := t.TempDir(), t.TempDir()
	authority, stranger := issue(t, dir, "authority", nil), issue(t, dir, "stranger", nil)
	between := issue(t, dir, "intermediate", authority)
	ours := issue(t, dir, "ldap.example", between)
	theirs := issue(t, dir, "ldap.example-2", stranger)
	good := &tls.Config{Certificates: []tls.Certificate{ours.pair(between)}}
	short := &tls.Config{Certificates: []tls.Certificate{ours.pair()}}
	foreign := &tls.Config{Certificates: []tls.Certificate{theirs.pair()}}
	writePEM(t, filepath.Join(folder, "ca"), "CERTIFICATE", authority.cert.Raw)
	writeFile(t, filepath.Join(folder, "README"), []byte("certificates of the site\n"))
	tests := []struct {
		name   string
		files  TLSFiles
		server *tls.Config
		host   string
		ok     bool
	}{
		{"nothing: any certificate", TLSFiles{}, foreign, "ldap.example", true},
		{"nothing, though an authority is named", TLSFiles{CAFile: authority.certFile}, foreign, "ldap.example", true},
		{"chain", TLSFiles{CAFile: authority.certFile, Verify: VerifyChain}, good, "ldap.example", true},
		{"chain: the name is of no meaning", TLSFiles{CAFile: authority.certFile, Verify: VerifyChain}, good, "other.example", true},
		{"chain: another authority", TLSFiles{CAFile: authority.certFile, Verify: VerifyChain}, foreign, "ldap.example-2", false},
		{"chain: a link is missing", TLSFiles{CAFile: authority.certFile, Verify: VerifyChain}, short, "ldap.example", false},
		{"chain: authorities of the system", TLSFiles{Verify: VerifyChain}, good, "ldap.example", false},
		{"name", TLSFiles{CAFile: authority.certFile, Verify: VerifyName}, good, "ldap.example", true},
		{"name: another one", TLSFiles{CAFile: authority.certFile, Verify: VerifyName}, good, "other.example", false},
		{"name: another authority", TLSFiles{CAFile: authority.certFile, Verify: VerifyName}, foreign, "ldap.example-2", false},
		{"a folder of authorities", TLSFiles{CAPath: folder, Verify: VerifyName}, good, "ldap.example", true},
		{"a folder without that authority", TLSFiles{CAPath: folder, Verify: VerifyName}, foreign, "ldap.example-2", false},
		{"TLS 1.1", TLSFiles{}, &tls.Config{Certificates: good.Certificates, MaxVersion: tls.VersionTLS11}, "ldap.example", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := shake(t, tt.files, tt.host, tt.server); (err == nil) != tt.ok {
				t.Errorf("%v, want success: %t", err, tt.ok)
			}
		})
	}
}

func TestClientCertificate(t *testing.T) {
	dir := t.TempDir()
	authority := issue(t, dir, "authority", nil)
	client := issue(t, dir, "client", authority)
	server := &tls.Config{Certificates: []tls.Certificate{issue(t, dir, "ldap.example", authority).pair()}, ClientAuth: tls.RequestClientCert, MaxVersion: tls.VersionTLS12}
	for want, f := range map[string]TLSFiles{"client": {Cert: client.certFile, Key: client.keyFile}, "": {}} {
		if got, err := shake(t, f, "ldap.example", server); err != nil || got != want {
			t.Errorf("showed %q, %v, want %q", got, err, want)
		}
	}
}

func TestTLSConfigErrors(t *testing.T) {
	dir, empty, crowd := t.TempDir(), t.TempDir(), t.TempDir()
	a, b := issue(t, dir, "a", nil), issue(t, dir, "b", nil)
	large := filepath.Join(dir, "large.pem")
	writeFile(t, large, nil)
	if err := os.Truncate(large, maxCertificate+1); err != nil {
		t.Fatal(err)
	}
	for range maxCertificates + 1 {
		f, err := os.CreateTemp(crowd, "")
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	writeFile(t, filepath.Join(empty, "notes"), []byte("no certificate"))
	tests := []struct {
		name  string
		files TLSFiles
		want  string
	}{
		{"certificate without key", TLSFiles{Cert: a.certFile}, "belong together"},
		{"key without certificate", TLSFiles{Key: a.keyFile}, "belong together"},
		{"key of another certificate", TLSFiles{Cert: a.certFile, Key: b.keyFile}, "certificate " + a.certFile + " with key " + b.keyFile},
		{"no such certificate", TLSFiles{Cert: dir + "/none", Key: a.keyFile}, "no such file"},
		{"no such authority", TLSFiles{CAFile: dir + "/none"}, "no such file"},
		{"authority without certificate", TLSFiles{CAFile: a.keyFile}, a.keyFile + ": no certificate in PEM"},
		{"large authority", TLSFiles{CAFile: large}, "larger than"},
		{"no such folder", TLSFiles{CAPath: dir + "/none"}, "no such file"},
		{"folder without certificates", TLSFiles{CAPath: empty}, empty + ": no certificate in any file"},
		{"folder of too many files", TLSFiles{CAPath: crowd}, "more than 2000 files"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := tt.files.Config()
			if c != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	if _, err := (TLSFiles{CAFile: dir + "/none"}).Config(); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestTLSList(t *testing.T) {
	for want, f := range map[string]TLSFiles{
		"":            {},
		"ca cert key": {CAFile: "ca", Cert: "cert", Key: "key"},
		"cert key":    {CAPath: "folder", Cert: "cert", Key: "key"},
	} {
		if got := f.List(); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%+v: %q", f, got)
		}
	}
}
