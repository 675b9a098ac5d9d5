package milter

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/milter/verify"
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
	work, answer, err := NewSigning(sign.New(sign.Options{}, signingKeys(t)), nil, nil).Begin(t.Context(), &Session{}, m)
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

// Results in our name that a login wrote itself are removed, whether its mail is signed or
// not. Mail without a login may have passed our milters before.
func TestSigningRemovesClaims(t *testing.T) {
	ours := Field{Name: "Authentication-Results", Value: " mx.home.example; dmarc=pass"}
	header := []Field{ours, {Name: "Authentication-Results", Value: " mx.other.example; none"}, {Name: "authentication-results ", Value: "\r\n MX.home.example 1; spf=pass"}}
	both := []Position{{Name: "Authentication-Results", Index: 3}, {Name: "Authentication-Results", Index: 1}}
	v := verify.New(verify.Options{})
	for name, test := range map[string]struct {
		login, from string
		reason      record.Reason
		removed     []Position
		early       bool
	}{
		"signed":           {"alice", "a@example.com", record.Signed, both, false},
		"not signed":       {"alice", "a@example.org", record.SignNoKey, both, false},
		"no login":         {"", "a@example.com", record.Signed, nil, false},
		"neither":          {"", "a@example.org", record.SignNoKey, nil, true},
		"not one of these": {"alice", "a@example.org", record.SignNoKey, nil, true},
	} {
		m := &Message{Role: Sign, Login: test.login, Header: append(slices.Clone(header), Field{Name: "From", Value: " " + test.from})}
		if name == "not one of these" {
			m.Header = m.Header[1:2]
		}
		work, _, err := NewSigning(sign.New(sign.Options{}, signingKeys(t)), nil, v).Begin(t.Context(), &Session{MTA: "mx.home.example"}, m)
		if err != nil {
			t.Fatal(err)
		}
		a, err := work.Headers(t.Context())
		if err != nil || (a.Verdict == Accept) != test.early || test.early && name != "not one of these" && a.Reason != test.reason {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
		if !test.early {
			bodyErr := work.Body([]byte("x\r\n"))
			d, err := work.Finish(t.Context())
			if err != nil || bodyErr != nil || d.Verdict != Continue || d.Reason != test.reason || !slices.Equal(d.Delete, test.removed) || (len(d.Insert) > 0) != (test.reason == record.Signed) {
				t.Errorf("%s: %+v, %v, %v", name, d, err, bodyErr)
			}
		}
		work.Close()
	}
	crowd := &Message{Role: Sign, Login: "alice", Header: slices.Repeat([]Field{ours}, verify.MaxRemoved+1)}
	work, _, err := NewSigning(sign.New(sign.Options{}, signingKeys(t)), nil, v).Begin(t.Context(), &Session{MTA: "mx.home.example"}, crowd)
	if err != nil {
		t.Fatal(err)
	}
	defer work.Close()
	if a, err := work.Headers(t.Context()); err != nil || a.Verdict != Reject || a.Reason != record.TooManyResults {
		t.Errorf("too many: %+v, %v", a, err)
	}
}

// downTable is a table that cannot be asked.
type downTable struct{}

func (downTable) Lookup(context.Context, string) ([]string, error) { return nil, errTables }

// They are also removed while the tables of keys cannot be asked.
func TestSigningRemovesClaimsWithoutTables(t *testing.T) {
	down := &sign.Tables{Keys: &sign.LookupTable{Lookup: downTable{}, Name: "down"}, Group: -1}
	for _, claims := range []bool{true, false} {
		m := &Message{Role: Sign, Login: "alice", Header: []Field{{Name: "From", Value: " a@example.com"}}}
		if claims {
			m.Header = append(m.Header, Field{Name: "Authentication-Results", Value: " mx.home.example; dmarc=pass"})
		}
		work, _, err := NewSigning(sign.New(sign.Options{Tables: down}, nil), nil, verify.New(verify.Options{})).Begin(t.Context(), &Session{MTA: "mx.home.example"}, m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := work.Headers(t.Context()); errors.Is(err, errTables) == claims {
			t.Errorf("headers: %v", err)
		}
		if claims {
			if d, err := work.Finish(t.Context()); err != nil || !errors.Is(d.Failed, errTables) || len(d.Delete) != 1 {
				t.Errorf("finish: %+v, %v", d, err)
			}
		}
		work.Close()
	}
}
