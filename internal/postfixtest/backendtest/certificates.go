package backendtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// The files that writeCertificates writes.
const (
	authorityFile = "ca.pem"
	serverCert    = "cert.pem"
	serverKey     = "key.pem"
	clientCert    = "client.pem"
	clientKey     = "client-key.pem"
)

// writeCertificates creates a private authority in dir, a server certificate for
// localhost, and a client certificate. It returns the path of the authority's
// certificate.
func writeCertificates(tb testing.TB, dir string) string {
	tb.Helper()
	caKey := newKey(tb)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a private authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	path := filepath.Join(dir, authorityFile)
	writePEM(tb, path, "CERTIFICATE", sign(tb, ca, ca, caKey, caKey))
	issue := func(serial int64, name, certFile, keyFile string, use x509.ExtKeyUsage) {
		key := newKey(tb)
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use},
		}
		if use == x509.ExtKeyUsageServerAuth {
			leaf.DNSNames, leaf.IPAddresses = []string{name}, []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			tb.Fatal(err)
		}
		writePEM(tb, filepath.Join(dir, certFile), "CERTIFICATE", sign(tb, leaf, ca, key, caKey))
		writePEM(tb, filepath.Join(dir, keyFile), "PRIVATE KEY", der)
	}
	issue(2, "localhost", serverCert, serverKey, x509.ExtKeyUsageServerAuth)
	issue(3, "postern", clientCert, clientKey, x509.ExtKeyUsageClientAuth)
	return path
}

// ClientCertificate returns the files of a client certificate that the server's
// authority has issued.
func (s *Server) ClientCertificate() (cert, key string) {
	return filepath.Join(s.Dir, clientCert), filepath.Join(s.Dir, clientKey)
}

// OtherAuthority creates an authority that has issued no certificate.
func OtherAuthority(tb testing.TB) string {
	tb.Helper()
	return writeCertificates(tb, tb.TempDir())
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func sign(tb testing.TB, cert, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) []byte {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), parentKey)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func writePEM(tb testing.TB, path, kind string, der []byte) {
	tb.Helper()
	write(tb, path, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}
