// TLS: which configuration do these files ask for?

package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/postern-mail/postern/internal/postmap/mapfile"
)

// Bounds of a folder of certificates.
const (
	maxCertificates = 2000
	maxCertificate  = 4 << 20 // octets of one file
)

// Verify is how much of a server's certificate must be right.
type Verify int

// The ways to verify.
const (
	VerifyNothing Verify = iota // encrypts only
	VerifyChain                 // an authority must have signed it
	VerifyName                  // and it must name the server
)

// TLSFiles are what a table file names.
type TLSFiles struct {
	CAFile, CAPath string // both empty mean the system's authorities
	Cert, Key      string // of the client; both empty mean none
	Verify         Verify
}

// List returns the files, to be watched for changes.
func (f TLSFiles) List() []string {
	var list []string
	for _, name := range []string{f.CAFile, f.Cert, f.Key} {
		if name != "" {
			list = append(list, name)
		}
	}
	return list
}

// Config reads the files. ServerName is for the caller to set.
func (f TLSFiles) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if f.CAFile != "" || f.CAPath != "" {
		if c.RootCAs, err = f.authorities(); err != nil {
			return nil, err
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("certificate and key belong together; give both or none")
	}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	f.verify(c)
	return c, nil
}

// verify sets what must be right; crypto/tls itself knows all or nothing.
func (f TLSFiles) verify(c *tls.Config) {
	if f.Verify == VerifyName {
		return
	}
	c.InsecureSkipVerify = true
	if f.Verify == VerifyNothing {
		return
	}
	roots := c.RootCAs
	c.VerifyConnection = func(s tls.ConnectionState) error {
		o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, cert := range s.PeerCertificates[1:] {
			o.Intermediates.AddCert(cert)
		}
		_, err := s.PeerCertificates[0].Verify(o)
		return err
	}
}

func (f TLSFiles) authorities() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if f.CAFile != "" {
		return pool, addFile(pool, f.CAFile)
	}
	entries, err := os.ReadDir(f.CAPath)
	if err != nil {
		return nil, err
	}
	if len(entries) > maxCertificates {
		return nil, fmt.Errorf("%s has more than %d files", f.CAPath, maxCertificates)
	}
	found := false
	for _, e := range entries {
		if addFile(pool, filepath.Join(f.CAPath, e.Name())) == nil {
			found = true // a folder may hold other files too
		}
	}
	if !found {
		return nil, fmt.Errorf("%s: no certificate in any file", f.CAPath)
	}
	return pool, nil
}

func addFile(pool *x509.CertPool, path string) error {
	file, err := mapfile.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if file.Info.Size() > maxCertificate {
		return fmt.Errorf("%s: larger than %d octets", path, maxCertificate)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !pool.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s: no certificate in PEM", path)
	}
	return nil
}
