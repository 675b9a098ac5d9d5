package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TLSServer is a server that speaks TLS only, with a certificate for the
// address 127.0.0.1 and no name.
type TLSServer struct {
	*Server
	CA string // file with the certificate of the authority that signed the server's
}

// StartTLS runs one server with an authority of its own.
func StartTLS(tb testing.TB) *TLSServer {
	tb.Helper()
	Require(tb)
	t := newTLS(tb)
	return &TLSServer{CA: t.ca, Server: t.start(tb)}
}

// certificates are those of an authority and of all servers that it vouches for.
type certificates struct{ dir, ca string }

func newTLS(tb testing.TB) *certificates {
	tb.Helper()
	dir := tb.TempDir()
	ca, err := WriteCertificates(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return &certificates{dir, ca}
}

// args make a server speak TLS only; nil leaves it as it is. Servers that
// connect to others show the same certificate.
func (c *certificates) args(port string) []string {
	if c == nil {
		return nil
	}
	return []string{"--port", "0", "--tls-port", port, "--tls-auth-clients", "no", "--tls-replication", "yes",
		"--tls-cert-file", filepath.Join(c.dir, serverFile), "--tls-key-file", filepath.Join(c.dir, keyFile), "--tls-ca-cert-file", c.ca}
}

// lines are args as they are in a file.
func (c *certificates) lines(port string) string {
	var b strings.Builder
	for pair := range slices.Chunk(c.args(port), 2) {
		fmt.Fprintf(&b, "%s %s\n", strings.TrimPrefix(pair[0], "--"), pair[1])
	}
	return b.String()
}

// start runs a server.
func (c *certificates) start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	port := freePort(tb)
	return start(tb, port, append(c.args(port), args...)...)
}

// scheme makes a URL's scheme one for TLS, and query names the authority.
func (c *certificates) scheme(plain string) string {
	if c == nil {
		return plain
	}
	return "rediss" + strings.TrimPrefix(plain, "redis")
}

func (c *certificates) query() string {
	if c == nil {
		return ""
	}
	return "?ca=" + c.ca
}

// StartSentinelsTLS is StartSentinels with TLS between all of them.
func StartSentinelsTLS(tb testing.TB) *Sentinels {
	tb.Helper()
	Require(tb)
	return startSentinels(tb, newTLS(tb))
}

// StartClusterTLS is StartCluster with TLS between all of them.
func StartClusterTLS(tb testing.TB) *Cluster {
	tb.Helper()
	Require(tb)
	return startCluster(tb, newTLS(tb))
}

const (
	caFile     = "ca.pem"
	serverFile = "server.pem"
	keyFile    = "server.key"
	// certLife is how long certificates are valid, from an hour ago on.
	certLife = 24 * time.Hour
)

// WriteCertificates makes an authority and a server's certificate and key in
// dir, and returns the file of the authority. The authority's key is dropped.
func WriteCertificates(dir string) (ca string, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	authority := template(1)
	authority.Subject.CommonName = "greylist test authority" // OpenSSL takes equal names for self-signed
	authority.IsCA, authority.BasicConstraintsValid, authority.KeyUsage = true, true, x509.KeyUsageCertSign
	server := template(2)
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	ca = filepath.Join(dir, caFile)
	for _, f := range []struct {
		path string
		kind string
		der  func() ([]byte, error)
	}{
		{ca, "CERTIFICATE", func() ([]byte, error) {
			return x509.CreateCertificate(rand.Reader, authority, authority, caKey.Public(), caKey)
		}},
		{filepath.Join(dir, serverFile), "CERTIFICATE", func() ([]byte, error) {
			return x509.CreateCertificate(rand.Reader, server, authority, key.Public(), caKey)
		}},
		{filepath.Join(dir, keyFile), "PRIVATE KEY", func() ([]byte, error) { return keyDER, nil }},
	} {
		der, err := f.der()
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(f.path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: der}), 0o600); err != nil {
			return "", err
		}
	}
	return ca, nil
}

func template(serial int64) *x509.Certificate {
	from := time.Now().Add(-time.Hour)
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "greylist test"},
		NotBefore: from, NotAfter: from.Add(certLife),
	}
}
