//go:build openssl && cgo

package rsaengine

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// newOpenSSL is the engine without anything between.
func newOpenSSL(t *testing.T) (*Engine, libcrypto) {
	t.Helper()
	e, err := New(OpenSSL, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	return e, e.lib.(libcrypto)
}

// Keys of all sizes sign as Go signs, at once, while others are loaded and dropped as
// a reload does. libcrypto's copies go with their keys.
func TestKeysComeAndGo(t *testing.T) {
	e, lib := newOpenSSL(t)
	var keys []*rsa.PrivateKey
	for _, bits := range []int{1024, 1536, 2048, 4096} {
		keys = append(keys, testKey(t, bits))
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for round := range 5 {
				for _, key := range keys {
					digest := digestOf(fmt.Sprint(worker, round))
					got, err := e.Signer(key).Sign(rand.Reader, digest, crypto.SHA256)
					if err != nil {
						t.Error(err)
					}
					if want, _ := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest); !bytes.Equal(got, want) {
						t.Errorf("%d bit: another signature than Go's", key.N.BitLen())
					}
				}
			}
		})
	}
	wg.Wait()
	if n := e.Fallbacks(); n > 0 {
		t.Errorf("%d fallbacks", n)
	}
	for lib.loaded.Load() > 0 {
		runtime.GC() // finds them unused; cleanups run beside
	}
}

// A key that OpenSSL does not take is signed with by Go.
func TestKeyThatOpenSSLRefuses(t *testing.T) {
	_, lib := newOpenSSL(t)
	if _, err := lib.load([]byte("no key")); err == nil || !strings.HasPrefix(err.Error(), "OpenSSL: ") {
		t.Errorf("error %v", err)
	}
	if n := lib.loaded.Load(); n != 0 {
		t.Errorf("%d keys are loaded", n)
	}
	e, _ := newOpenSSL(t)
	key := testKey(t, 1024)
	s := e.Signer(key).(*signer)
	if _, err := s.signNative([]byte("no digest")); err == nil {
		t.Error("no digest was signed")
	}
	if got, err := s.signNative(digestOf("x")); err != nil || len(got) != 128 {
		t.Errorf("after an error: %d octets, %v", len(got), err)
	}
}

// A signature leaves nothing behind: a leak costs memory in each round, while the
// rest of the process needs more only now and then.
func TestSigningNeedsNoMemory(t *testing.T) {
	e, _ := newOpenSSL(t)
	s := e.Signer(testKey(t, 1024))
	const signatures = 20_000
	var grown []int
	for range 5 {
		before := residentKB(t)
		for range signatures {
			if _, err := s.Sign(rand.Reader, digestOf("x"), crypto.SHA256); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		kB := residentKB(t) - before
		// A context of OpenSSL's is more than 200 octets.
		if kB*1024 <= signatures*200 {
			return
		}
		grown = append(grown, kB)
	}
	t.Errorf("each %d signatures cost memory: %d KB", signatures, grown)
}

func residentKB(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kB, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kB
}
