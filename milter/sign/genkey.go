package sign

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Bounds and defaults of new keys.
const (
	DefaultBits     = 2048
	DefaultSelector = "postern"

	// ed25519Suffix is added to the selector of the Ed25519 key when two keys are
	// made together.
	ed25519Suffix = "-ed25519"
)

// KeyType is the kind of a new key.
type KeyType string

// The kinds of keys. Both makes one of each; verifiers that do not know Ed25519
// use the RSA one.
const (
	Both    KeyType = "both"
	RSA     KeyType = "rsa"
	Ed25519 KeyType = "ed25519"
)

// NewKeys says which keys to make.
type NewKeys struct {
	Dir      string  // the folder of all domains, created if missing
	Domain   string  // U-labels are allowed
	Selector string  // "" means DefaultSelector; the Ed25519 key of Both adds "-ed25519"
	Type     KeyType // "" means Both
	Bits     int     // of an RSA key, 1024 to 4096; 0 means DefaultBits
	// Below names a folder within the folder of the domain, which gets the files
	// instead. Keys in a hidden folder are not read, so they do not sign yet.
	Below string
}

// NewKey is a key that was made.
type NewKey struct {
	*Key
	RecordPath string // DIR/<domain>/<selector>.txt
	ZoneEntry  string // its content
}

// Generate makes keys, writes each to DIR/<domain>/<selector>.private with mode 0600
// and its DNS record to <selector>.txt, the layout of opendkim-genkey -D
// DIR/<domain>. Nothing that exists is overwritten. When root runs it, new files and
// folders belong to the owner of Dir, so that the daemon can read them.
func Generate(req NewKeys) ([]NewKey, error) {
	if err := req.complete(); err != nil {
		return nil, err
	}
	var keys []NewKey
	for _, kind := range []KeyType{RSA, Ed25519} {
		if req.Type != Both && req.Type != kind {
			continue
		}
		key, err := req.generate(kind)
		if err != nil {
			return keys, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// complete fills in defaults and checks the request before anything is written.
func (req *NewKeys) complete() error {
	if req.Selector == "" {
		req.Selector = DefaultSelector
	}
	if req.Type == "" {
		req.Type = Both
	}
	if req.Bits == 0 {
		req.Bits = DefaultBits
	}
	if req.Dir == "" {
		return errors.New("generate key: no folder")
	}
	domain, err := mailaddr.ParseDomain(req.Domain)
	if err != nil {
		return fmt.Errorf("generate key: domain %q: %w", req.Domain, err)
	}
	req.Domain = domain
	req.Selector = strings.ToLower(req.Selector)
	if _, err := mailaddr.ParseDomain(req.selector(Ed25519) + "._domainkey." + domain); err != nil {
		return fmt.Errorf("generate key: selector %q: %w", req.Selector, err)
	}
	switch req.Type {
	case Both, RSA, Ed25519:
	default:
		return fmt.Errorf("generate key: type %q is not rsa, ed25519 or both", req.Type)
	}
	if req.Type != Ed25519 {
		if err := checkBits(req.Bits); err != nil {
			return fmt.Errorf("generate key: %w", err)
		}
	}
	return nil
}

func (req *NewKeys) selector(kind KeyType) string {
	if req.Type == Both && kind == Ed25519 {
		return req.Selector + ed25519Suffix
	}
	return req.Selector
}

func (req *NewKeys) generate(kind KeyType) (NewKey, error) {
	signer, err := newSigner(kind, req.Bits)
	if err != nil {
		return NewKey{}, fmt.Errorf("generate key: %w", err)
	}
	folder := filepath.Join(req.Dir, req.Domain, req.Below)
	base := filepath.Join(folder, req.selector(kind))
	key, err := newKey(req.Domain, req.selector(kind), base+keySuffix, signer)
	if err != nil {
		return NewKey{}, err
	}
	entry, err := key.ZoneEntry()
	if err != nil {
		return NewKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return NewKey{}, fmt.Errorf("generate key: %w", err)
	}
	defer clear(der)
	root, owner, err := req.makeFolders()
	if err != nil {
		return NewKey{}, fmt.Errorf("generate key: %w", err)
	}
	defer root.Close()
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(text)
	below := filepath.Join(req.Below, req.selector(kind))
	if err := owner.writeNew(root, below+keySuffix, text, 0o600); err != nil {
		return NewKey{}, fmt.Errorf("generate key: %s: %w", key.Path, cause(err))
	}
	if err := owner.writeNew(root, below+".txt", []byte(entry), 0o644); err != nil {
		return NewKey{}, errors.Join(fmt.Errorf("generate key: %s: %w", base+".txt", cause(err)), root.Remove(below+keySuffix))
	}
	return NewKey{Key: key, RecordPath: base + ".txt", ZoneEntry: entry}, nil
}

func newSigner(kind KeyType, bits int) (crypto.Signer, error) {
	if kind == RSA {
		return rsa.GenerateKey(rand.Reader, bits)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

// owner is the owner of new files. The zero value does not change the owner.
type owner struct {
	set      bool
	uid, gid int
}

// makeFolders creates missing folders, and returns the folder of the domain and the owner
// of that of all domains.
func (req *NewKeys) makeFolders() (*os.Root, owner, error) {
	if err := os.MkdirAll(req.Dir, 0o700); err != nil {
		return nil, owner{}, err
	}
	all, err := os.OpenRoot(req.Dir)
	if err != nil {
		return nil, owner{}, err
	}
	defer all.Close()
	info, err := all.Stat(".")
	if err != nil {
		return nil, owner{}, err
	}
	var o owner
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		o = owner{true, int(sys.Uid), int(sys.Gid)}
	}
	if err := o.makeFolder(all, req.Domain); err != nil {
		return nil, owner{}, fmt.Errorf("%s: %w", filepath.Join(req.Dir, req.Domain), cause(err))
	}
	root, err := OpenDomainFolder(req.Dir, req.Domain)
	if err != nil || req.Below == "" {
		return root, o, err
	}
	if err := o.makeFolder(root, req.Below); err != nil {
		return nil, owner{}, errors.Join(fmt.Errorf("%s: %w", filepath.Join(req.Dir, req.Domain, req.Below), cause(err)), root.Close())
	}
	return root, o, nil
}

// makeFolder creates a folder, if it is missing.
func (o owner) makeFolder(in *os.Root, name string) error {
	switch err := in.Mkdir(name, 0o700); {
	case errors.Is(err, os.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return o.chown(in, name)
}

func (o owner) chown(in *os.Root, name string) error {
	if !o.set {
		return nil
	}
	return in.Lchown(name, o.uid, o.gid)
}

// writeNew creates a file, and removes it if it cannot be completed.
func (o owner) writeNew(in *os.Root, name string, data []byte, mode os.FileMode) error {
	f, err := in.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && o.set {
		err = f.Chown(o.uid, o.gid)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, in.Remove(name))
	}
	return nil
}
