//go:build openssl && cgo

package rsaengine

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"sync"
	"testing"
	"time"
)

// An engine that ends while it signs finishes what has begun. Go makes the rest.
func TestCloseWhileSigning(t *testing.T) {
	e := newEnding(t)
	signAll(t, e, func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Signatures do not wait forever for threads whose results cannot be read.
func TestResultsCannotBeRead(t *testing.T) {
	e := newEnding(t)
	threads := e.lib.(libcrypto).threads
	signAll(t, e, func() {
		if err := threads.wake.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Error(err)
		}
	})
	threads.giving.Wait()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// newEnding is an engine that will refuse signatures.
func newEnding(t *testing.T) *Engine {
	t.Helper()
	e, err := New(OpenSSL, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// signAll makes signatures with many goroutines, and calls during when some have begun.
// After that, it makes one more, which Go has to make.
func signAll(t *testing.T, e *Engine, during func()) {
	t.Helper()
	key, digest := testKey(t, 1024), digestOf("x")
	want, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest)
	if err != nil {
		t.Fatal(err)
	}
	sign := func() {
		got, err := e.Signer(key).Sign(rand.Reader, digest, crypto.SHA256)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("signature %x, %v", got, err)
		}
	}
	var all, begun sync.WaitGroup
	for range 50 {
		begun.Add(1)
		all.Go(func() {
			sign()
			begun.Done()
			sign()
			sign()
		})
	}
	begun.Wait()
	during()
	all.Wait()
	e.lib.(libcrypto).threads.working.Wait()
	before := e.Fallbacks()
	if sign(); e.Fallbacks() != before+1 {
		t.Errorf("%d fallbacks after %d: the engine still signs", e.Fallbacks(), before)
	}
}
