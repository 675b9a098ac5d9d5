package milter

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/sign"
)

// signingKeys makes a folder with one key of example.com.
func signingKeys(t *testing.T) *sign.Keys {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "keys")
	if err := os.MkdirAll(filepath.Join(dir, "example.com"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(filepath.Join(dir, "example.com", "ed.private"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := sign.LoadKeys(sign.KeySource{Dir: dir, Group: -1})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func beginSigning(t *testing.T, from string) Work {
	t.Helper()
	m := &Message{Role: Sign, Header: []Field{{Name: "From", Value: " " + from}, {Name: "Subject", Value: " a\r\n b"}}}
	work, answer, err := NewSigning(sign.New(sign.Options{}, signingKeys(t)), nil).Begin(t.Context(), &Session{}, m)
	if err != nil || answer.Verdict != Continue || work == nil {
		t.Fatalf("begin: %+v, %v", answer, err)
	}
	return work
}

func TestSigning(t *testing.T) {
	work := beginSigning(t, "a@example.com")
	defer work.Close()
	if a, err := work.Headers(t.Context()); err != nil || a.Verdict != Continue {
		t.Fatalf("headers: %+v, %v", a, err)
	}
	for _, chunk := range []string{"Hello\r", "\n", strings.Repeat("x", 999)} {
		if err := work.Body([]byte(chunk)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := work.Finish(t.Context())
	if err != nil || d.Verdict != Continue || d.Reason != record.Signed {
		t.Fatalf("finish: %+v, %v", d, err)
	}
	if len(d.Insert) != 1 || d.Insert[0].Name != "DKIM-Signature" || d.Insert[0].Index != 0 || !strings.HasPrefix(d.Insert[0].Value, " v=1;") {
		t.Errorf("inserts %+v", d.Insert)
	}
	if d.Details.SignedBy != "example.com/ed" || d.Details.From != "example.com" {
		t.Errorf("details %+v", d.Details)
	}
	if len(d.Details.Steps) != 1 || !strings.Contains(d.Details.Steps[0].Detail, "999 octets") {
		t.Errorf("steps %+v", d.Details.Steps)
	}
}

// A message that will not be signed is settled before its body comes.
func TestSigningSettlesEarly(t *testing.T) {
	work := beginSigning(t, "a@example.org")
	defer work.Close()
	a, err := work.Headers(t.Context())
	if err != nil || a.Verdict != Accept || a.Reason != record.SignNoKey || a.Details.From != "example.org" {
		t.Errorf("headers: %+v, %v", a, err)
	}
}

// A message may end at any stage.
func TestSigningAborted(t *testing.T) {
	beginSigning(t, "a@example.com").Close()
	work := beginSigning(t, "a@example.com")
	if _, err := work.Headers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := work.Body([]byte("x")); err != nil {
		t.Fatal(err)
	}
	work.Close()
}
