package sign

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/postern-mail/postern/internal/private"
)

// Bounds of a key.
const (
	// MinRSABits is the shortest key that verifiers accept (RFC 8301 section 3.2).
	MinRSABits = 1024
	// MaxRSABits is the longest key that verifiers must accept.
	MaxRSABits = 4096

	maxKeyFile = 64 << 10 // octets
)

// Key is a private key at one selector of a domain.
type Key struct {
	Domain    string // A-labels, lower case: d=
	Selector  string // lower case: s=
	Algorithm string // rsa-sha256 or ed25519-sha256: a=
	Bits      int    // of an RSA key, else 0
	Identity  string // user@domain: i=; "" for none
	Path      string
	Signer    crypto.Signer
}

// Name returns the domain name of the key's record.
func (k *Key) Name() string { return k.Selector + "._domainkey." + k.Domain }

// SameAs reports whether two keys have the same public half.
func (k *Key) SameAs(other *Key) bool {
	public, ok := k.Signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(other.Signer.Public())
}

// sign returns the signature over the SHA-256 digest of a header. Ed25519 signs the
// digest as a message (RFC 8463 section 3).
func (k *Key) sign(random io.Reader, digest []byte) ([]byte, error) {
	hash := crypto.SHA256
	if k.Algorithm == ed25519SHA256 {
		hash = 0
	}
	return k.Signer.Sign(random, digest, hash)
}

// The algorithms of RFC 6376 and RFC 8463 that are still used.
const (
	rsaSHA256     = "rsa-sha256"
	ed25519SHA256 = "ed25519-sha256"
)

// KeyFile returns the path of the key of a selector in the folder of its domain.
func KeyFile(folder, selector string) string { return filepath.Join(folder, selector+keySuffix) }

// ReadKey reads one key. group is that of [KeySource].
func ReadKey(domain, selector, path string, group int) (*Key, error) {
	signer, err := readKeyFile(path, group)
	if err != nil {
		return nil, err
	}
	return newKey(domain, selector, path, signer)
}

// readKeyFile reads a key in PEM, PKCS#1 or PKCS#8. group is the group whose
// members may read it, -1 for none.
func readKeyFile(path string, group int) (crypto.Signer, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, openError(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if err := private.Check(path, info, group, "the private key"); err != nil {
		return nil, err
	}
	data := make([]byte, maxKeyFile+1)
	defer clear(data)
	n, err := io.ReadFull(f, data)
	if err == nil {
		return nil, fmt.Errorf("%s: more than %d octets, which is no key", path, maxKeyFile)
	}
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	key, err := parseKey(data[:n])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, syscall.ELOOP):
		return fmt.Errorf("%s: a symbolic link that leads back to itself; remove it", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: give the daemon's user access, for example chown it to that user", err)
	default:
		return err
	}
}

// checkFolder refuses a folder in which others can replace keys.
func checkFolder(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return openError(path, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s: not a folder", path)
	}
	if mode := info.Mode(); mode.Perm()&0o002 != 0 && mode&fs.ModeSticky == 0 {
		return fmt.Errorf("%s: mode %04o lets everybody replace keys; chmod o-w %s", path, mode.Perm(), path)
	}
	return nil
}

// parseKey reads the only private key in PEM text. It may change the text. Errors
// never show its content. Decoded copies of the key are cleared, except those that
// Go's own parsers make.
func parseKey(data []byte) (crypto.Signer, error) {
	data = unixLines(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	var key crypto.Signer
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		next, err := parseBlock(block)
		if err != nil {
			return nil, err
		}
		if key != nil {
			return nil, errors.New("holds more than one private key; give each its own file")
		}
		key = next
	}
	if key == nil {
		return nil, errors.New("holds no private key in PEM")
	}
	return key, checkKey(key)
}

// unixLines ends lines in LF, in place. Editors on other systems write CR LF, or CR
// alone.
func unixLines(data []byte) []byte {
	n := 0
	for i, b := range data {
		if b == '\r' {
			if i+1 < len(data) && data[i+1] == '\n' {
				continue
			}
			b = '\n'
		}
		data[n] = b
		n++
	}
	return data[:n]
}

// parseBlock reads the private key of a block, and clears the block.
func parseBlock(block *pem.Block) (crypto.Signer, error) {
	defer clear(block.Bytes)
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, errors.New("the key is encrypted; write it without a passphrase: openssl pkey -in OLD -out NEW")
	case block.Type == "RSA PRIVATE KEY":
		if err := checkModulus(block.Bytes); err != nil {
			return nil, err
		}
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("not a PKCS#1 RSA key")
		}
		return key, nil
	case block.Type == "PRIVATE KEY":
		return parsePKCS8(block.Bytes)
	case block.Type == "PUBLIC KEY", block.Type == "RSA PUBLIC KEY":
		return nil, errors.New("holds a public key; the private one is needed")
	default:
		return nil, fmt.Errorf("PEM block of an unknown type; DKIM needs an RSA or Ed25519 private key")
	}
}

func parsePKCS8(der []byte) (crypto.Signer, error) {
	var outer struct {
		Version   int
		Algorithm struct {
			Algorithm  asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		PrivateKey []byte
		Rest       asn1.RawValue `asn1:"optional,tag:0"`
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, errors.New("not a PKCS#8 key")
	}
	defer clear(outer.PrivateKey)
	if outer.Algorithm.Algorithm.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}) {
		if err := checkModulus(outer.PrivateKey); err != nil {
			return nil, err
		}
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("not a PKCS#8 key of RSA or Ed25519")
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	default:
		return nil, fmt.Errorf("a key of type %T; DKIM needs RSA or Ed25519", key)
	}
}

// checkModulus checks the size of an RSA key before Go validates the key, because
// that takes seconds for a very large one.
func checkModulus(pkcs1 []byte) error {
	var key struct {
		Version int
		N       *big.Int
	}
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(pkcs1, &outer); err != nil {
		return errors.New("not an RSA key")
	}
	rest, err := asn1.Unmarshal(outer.Bytes, &key.Version)
	if err == nil {
		_, err = asn1.Unmarshal(rest, &key.N)
	}
	if err != nil {
		return errors.New("not an RSA key")
	}
	return checkBits(key.N.BitLen())
}

func checkBits(bits int) error {
	if bits < MinRSABits {
		return fmt.Errorf("RSA key of %d bit, which verifiers refuse; at least %d are needed, make a new one of 2048", bits, MinRSABits)
	}
	if bits > MaxRSABits {
		return fmt.Errorf("RSA key of %d bit, but verifiers need not accept more than %d; make a new one of 2048", bits, MaxRSABits)
	}
	return nil
}

func checkKey(key crypto.Signer) error {
	if key, ok := key.Public().(*rsa.PublicKey); ok {
		return checkBits(key.N.BitLen())
	}
	return nil
}

// newKey describes a signer.
func newKey(domain, selector, path string, signer crypto.Signer) (*Key, error) {
	k := &Key{Domain: domain, Selector: selector, Path: path, Signer: signer}
	switch public := signer.Public().(type) {
	case *rsa.PublicKey:
		k.Algorithm, k.Bits = rsaSHA256, public.N.BitLen()
	case ed25519.PublicKey:
		k.Algorithm = ed25519SHA256
	default:
		return nil, fmt.Errorf("%s: a key of type %T; DKIM needs RSA or Ed25519", path, public)
	}
	return k, nil
}
