// Package rsaengine signs with RSA keys. It uses OpenSSL's libcrypto if the
// program was built with it, otherwise Go.
//
// RSA is the largest part of the cost of a signed mail, and libcrypto is about
// three times as fast as crypto/rsa. A build with the tag "openssl" and cgo is
// linked with libcrypto 3. Every other build is pure Go and has only the
// engine "go".
//
// Invariants:
//
//   - OpenSSL only makes signing faster. If there is any problem with it, Go
//     signs. PKCS#1 v1.5 signatures have no random part, so both engines
//     return the same signature.
//   - The first signature of each key is verified by Go before it is used.
//   - The number of threads inside libcrypto is never greater than
//     GOMAXPROCS.
//   - libcrypto's copy of a key is made for the key's first signature. It is
//     freed after the garbage collector has found that the signer is not used
//     any more.
package rsaengine

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

// The names of the engines.
const (
	Auto    = "auto" // OpenSSL if it is built in, else Go
	Go      = "go"
	OpenSSL = "openssl"
)

// ErrNotBuiltIn is the error of New if OpenSSL is requested but the program
// was built without it.
var ErrNotBuiltIn = errors.New("this program was built without OpenSSL; use auto or go, install the Debian package for amd64, or build with: make openssl")

// Engine makes signers of RSA keys. It may be used by several goroutines.
type Engine struct {
	name, version string
	lib           library // nil if Go signs
	slots         chan struct{}
	failed        func(error)

	warned    atomic.Bool
	fallbacks atomic.Uint64
}

// library is another implementation of RSA.
type library interface {
	// load makes the library's copy of a key. The copy is freed together with the
	// returned value.
	load(pkcs1 []byte) (native, error)
}

// native is a key inside a library. sign may be called by several goroutines.
type native interface {
	sign(digest []byte, size int) ([]byte, error)
}

// New returns the engine with a name. If there is a problem with OpenSSL,
// failed is called for the first one only.
func New(name string, failed func(error)) (*Engine, error) {
	e := &Engine{name: Go, failed: failed, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	if name == OpenSSL && !builtIn {
		return nil, ErrNotBuiltIn
	}
	if name == Go || !builtIn {
		return e, nil
	}
	lib, version, err := openLibrary()
	if err != nil {
		e.fellBack(err)
		return e, nil
	}
	e.name, e.version, e.lib = OpenSSL, version, lib
	return e, nil
}

// Name returns the name of the engine that signs: Go or OpenSSL.
func (e *Engine) Name() string { return e.name }

// Version returns the version of OpenSSL, or "" for Go.
func (e *Engine) Version() string { return e.version }

// Fallbacks returns how many signatures Go made because OpenSSL failed.
func (e *Engine) Fallbacks() uint64 { return e.fallbacks.Load() }

// Signer returns a signer for key. The engine makes PKCS#1 v1.5 signatures
// over SHA-256 digests. Go makes all others.
func (e *Engine) Signer(key *rsa.PrivateKey) crypto.Signer {
	if e.lib == nil {
		return key
	}
	return &signer{engine: e, key: key}
}

// fellBack reports the first problem and ignores the others.
func (e *Engine) fellBack(err error) {
	if !e.warned.Swap(true) && e.failed != nil {
		e.failed(err)
	}
}

// signer is a key that libcrypto can have a copy of.
type signer struct {
	engine *Engine
	key    *rsa.PrivateKey

	load    sync.Once
	native  native      // written by load
	proven  atomic.Bool // a signature by native was verified
	refused atomic.Bool // native must not be used
}

func (s *signer) Public() crypto.PublicKey { return s.key.Public() }

// Sign implements crypto.Signer.
func (s *signer) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	_, pss := opts.(*rsa.PSSOptions)
	if pss || opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return s.key.Sign(random, digest, opts)
	}
	if !s.refused.Load() {
		signature, err := s.signNative(digest)
		if err == nil {
			return signature, nil
		}
		s.refused.Store(true)
		s.engine.fellBack(err)
	}
	s.engine.fallbacks.Add(1)
	return s.key.Sign(random, digest, opts)
}

// signNative signs with the library. It verifies the signatures until the
// first valid one.
func (s *signer) signNative(digest []byte) ([]byte, error) {
	s.engine.slots <- struct{}{}
	defer func() { <-s.engine.slots }()
	var err error
	s.load.Do(func() { s.native, err = s.loadNative() })
	if err != nil {
		return nil, err
	}
	if s.native == nil {
		return nil, errors.New("the key could not be loaded")
	}
	signature, err := s.native.sign(digest, s.key.Size())
	if err != nil || s.proven.Load() {
		return signature, err
	}
	if err := rsa.VerifyPKCS1v15(&s.key.PublicKey, crypto.SHA256, digest, signature); err != nil {
		return nil, errors.New("its first signature does not verify")
	}
	s.proven.Store(true)
	return signature, nil
}

// loadNative loads the key into the library. It clears the temporary copy.
func (s *signer) loadNative() (native, error) {
	der := x509.MarshalPKCS1PrivateKey(s.key)
	defer clear(der)
	key, err := s.engine.lib.load(der)
	if err != nil {
		return nil, fmt.Errorf("load a key of %d bit: %w", s.key.N.BitLen(), err)
	}
	return key, nil
}
