package rsaengine

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// testKey is a key of a size that is made quickly.
func testKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func digestOf(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

// fake is a library of the test's own.
type fake struct {
	loads atomic.Int64
	err   error // of load
	key   func(digest []byte, size int) ([]byte, error)
}

func (f *fake) load([]byte) (native, error) {
	f.loads.Add(1)
	if f.err != nil {
		return nil, f.err
	}
	return fakeKey(f.key), nil
}

type fakeKey func(digest []byte, size int) ([]byte, error)

func (k fakeKey) sign(digest []byte, size int) ([]byte, error) { return k(digest, size) }

// withLibrary is an engine whose library is f, and what was reported.
func withLibrary(f *fake) (*Engine, *[]string) {
	var reported []string
	return &Engine{
		name: OpenSSL, lib: f, slots: make(chan struct{}, 2),
		failed: func(err error) { reported = append(reported, err.Error()) },
	}, &reported
}

// Whatever a library does, the signature is good, and one line says what went wrong.
func TestFallback(t *testing.T) {
	key := testKey(t, 1024)
	good := func(digest []byte, _ int) ([]byte, error) {
		return rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest)
	}
	signed := 0
	for _, test := range []struct {
		name      string
		lib       *fake
		want      string // in the one report
		fallbacks uint64
	}{
		{"good", &fake{key: good}, "", 0},
		{"no load", &fake{err: errors.New("out of memory")}, "load a key of 1024 bit: out of memory", 4},
		{"an error", &fake{key: func([]byte, int) ([]byte, error) { return nil, errors.New("no digest") }}, "no digest", 4},
		{"a wrong signature", &fake{key: func(_ []byte, size int) ([]byte, error) { return make([]byte, size), nil }}, "first signature does not verify", 4},
		{"a short signature", &fake{key: func([]byte, int) ([]byte, error) { return []byte{1}, nil }}, "first signature does not verify", 4},
		{"an error later", &fake{key: func(digest []byte, size int) ([]byte, error) {
			if signed++; signed > 1 {
				return nil, errors.New("the module is gone")
			}
			return good(digest, size)
		}}, "the module is gone", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, reported := withLibrary(test.lib)
			s := e.Signer(key)
			for _, text := range []string{"a", "b", "c", "d"} {
				got, err := s.Sign(rand.Reader, digestOf(text), crypto.SHA256)
				if err != nil {
					t.Fatal(err)
				}
				if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digestOf(text), got); err != nil {
					t.Errorf("signature over %s: %v", text, err)
				}
			}
			if test.want == "" && len(*reported) > 0 || test.want != "" && (len(*reported) != 1 || !strings.Contains((*reported)[0], test.want)) {
				t.Errorf("reported %q, want one with %q", *reported, test.want)
			}
			if got := e.Fallbacks(); got != test.fallbacks {
				t.Errorf("%d fallbacks, want %d", got, test.fallbacks)
			}
			if n := test.lib.loads.Load(); n != 1 {
				t.Errorf("the key was loaded %d times", n)
			}
		})
	}
}

// A key that the library refuses costs no other key its engine, and the second one is
// counted without a second line.
func TestFallbackIsOfOneKey(t *testing.T) {
	bad, good := testKey(t, 1024), testKey(t, 1024)
	e, reported := withLibrary(&fake{key: func(digest []byte, _ int) ([]byte, error) {
		return rsa.SignPKCS1v15(nil, good, crypto.SHA256, digest)
	}})
	for _, key := range []*rsa.PrivateKey{bad, good, testKey(t, 1024)} {
		if _, err := e.Signer(key).Sign(nil, digestOf("x"), crypto.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	if e.Fallbacks() != 2 || len(*reported) != 1 {
		t.Errorf("%d fallbacks, reported %q", e.Fallbacks(), *reported)
	}
}

// What DKIM does not use is left to Go.
func TestOtherSignatures(t *testing.T) {
	key := testKey(t, 1024)
	f := &fake{err: errors.New("not to be asked")}
	e, _ := withLibrary(f)
	s := e.Signer(key)
	pss, err := s.Sign(rand.Reader, digestOf("x"), &rsa.PSSOptions{Hash: crypto.SHA256})
	if err != nil || rsa.VerifyPSS(&key.PublicKey, crypto.SHA256, digestOf("x"), pss, nil) != nil {
		t.Errorf("PSS: %v", err)
	}
	if _, err := s.Sign(rand.Reader, []byte("short"), crypto.SHA256); err == nil {
		t.Error("a digest of five octets was signed")
	}
	if n := f.loads.Load(); n > 0 {
		t.Errorf("the library was asked %d times", n)
	}
	if !s.Public().(*rsa.PublicKey).Equal(&key.PublicKey) {
		t.Error("another public key")
	}
}

// No more calls than slots are inside the library at once.
func TestThreadsAreBounded(t *testing.T) {
	key := testKey(t, 1024)
	const slots = 2
	inside, release := make(chan struct{}, 100), make(chan struct{})
	e, _ := withLibrary(&fake{key: func(digest []byte, _ int) ([]byte, error) {
		inside <- struct{}{}
		<-release
		return rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest)
	}})
	var wg sync.WaitGroup
	s := e.Signer(key)
	for range 20 {
		wg.Go(func() {
			if _, err := s.Sign(nil, digestOf("x"), crypto.SHA256); err != nil {
				t.Error(err)
			}
		})
	}
	for range slots {
		<-inside
	}
	for range 1000 {
		runtime.Gosched()
	}
	if n := len(inside); n > 0 {
		t.Errorf("%d more calls are inside", n)
	}
	close(release)
	wg.Wait()
	if n := e.Fallbacks(); n > 0 {
		t.Errorf("%d fallbacks", n)
	}
}

// Every name that is allowed gives an engine that signs as Go does, but for the one
// that is not in the program.
func TestNew(t *testing.T) {
	key := testKey(t, 2048)
	for _, name := range []string{Auto, Go, OpenSSL} {
		e, err := New(name, func(err error) { t.Error(err) })
		if name == OpenSSL && !builtIn {
			if !errors.Is(err, ErrNotBuiltIn) {
				t.Errorf("openssl: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want := Go
		if builtIn && name != Go {
			want = OpenSSL
		}
		if e.Name() != want || (e.Version() != "") != (want == OpenSSL) {
			t.Errorf("%s gives engine %q, version %q; want %s", name, e.Name(), e.Version(), want)
		}
		got, err := e.Signer(key).Sign(rand.Reader, digestOf("x"), crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if plain, _ := key.Sign(rand.Reader, digestOf("x"), crypto.SHA256); !bytes.Equal(got, plain) {
			t.Errorf("%s: another signature than Go's", name)
		}
		if e.Fallbacks() > 0 {
			t.Errorf("%s: %d fallbacks", name, e.Fallbacks())
		}
	}
}

func BenchmarkSign(b *testing.B) {
	key := testKey(b, 2048)
	for _, name := range []string{Go, Auto} {
		e, err := New(name, func(err error) { b.Error(err) })
		if err != nil {
			b.Fatal(err)
		}
		s, digest := e.Signer(key), digestOf("x")
		b.Run(e.Name(), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Sign(rand.Reader, digest, crypto.SHA256); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
