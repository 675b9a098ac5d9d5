package dkim

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// limited signs a body with an l=, and its first octets alone if that is less.
func limited(key ed25519.PrivateKey, form Canonicalization, signed, l string) []Field {
	from := Field{Name: "From", Value: " a@example.com"}
	body := NewBodyHash(form)
	body.Write([]byte(signed))
	sum := body.Sum()
	value := fmt.Sprintf(" v=1; a=ed25519-sha256; c=relaxed/%s; d=example.com; s=s; l=%s; h=from; bh=%s; b=", form, l, base64.StdEncoding.EncodeToString(sum[:]))
	hash := sha256.New()
	hash.Write(AppendField(nil, Relaxed, from))
	own := AppendField(nil, Relaxed, Field{Name: FieldName, Value: value})
	hash.Write(own[:len(own)-len(crlf)])
	value += base64.StdEncoding.EncodeToString(ed25519.Sign(key, hash.Sum(nil)))
	return []Field{{Name: FieldName, Value: value}, from}
}

// An l= that covers the whole body leaves nothing to anyone; one that does not
// never passes.
func TestLength(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	records := tableOf(map[string][]string{"s._domainkey.example.com": {"v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))}})
	long := strings.Repeat("0123456789 abcdef\r\n", 5000)
	tests := []struct {
		name      string
		form      Canonicalization
		signed, l string
		body      string // that arrives
		status    Status
		reason    string
	}{
		{"whole", Simple, "Hello\r\n", "7", "Hello\r\n", Pass, "l= covers the whole body"},
		{"whole, canonical", Relaxed, "Hello\r\n", "7", "Hello  \r\n\r\n\r\n", Pass, "l= covers the whole body"},
		{"whole, long", Relaxed, long, fmt.Sprint(len(long)), long, Pass, "l= covers the whole body"},
		{"whole, empty", Relaxed, "", "0", "", Pass, "l= covers the whole body"},
		{"appended", Simple, "Hello\r\n", "7", "Hello\r\nx\r\n", Policy, "l= leaves part of the body unsigned"},
		{"one octet left", Simple, "Hello\r\n", "6", "Hello\r\n", Policy, "l= leaves part of the body unsigned"},
		{"nothing signed", Relaxed, "", "0", "Hello\r\n", Policy, "l= leaves part of the body unsigned"},
		{"cut", Simple, "Hello\r\n", "7", "Hel\r\n", Fail, "l= is longer than the body"},
		{"far beyond", Simple, "Hello\r\n", strings.Repeat("9", 70), "Hello\r\n", Fail, "l= is longer than the body"},
		{"another body of that length", Simple, "Hello\r\n", "7", "World\r\n", Fail, "body hash did not verify"},
		{"no number", Simple, "Hello\r\n", "x", "Hello\r\n", PermError, "l= is not a length"},
		{"negative", Simple, "Hello\r\n", "-7", "Hello\r\n", PermError, "l= is not a length"},
		{"empty", Simple, "Hello\r\n", "", "Hello\r\n", PermError, "l= is not a length"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := verify(t, &Verifier{Resolver: records, Now: fixedNow}, limited(key, tt.form, tt.signed, tt.l), tt.body).Signatures[0]
			if s.Status != tt.status || s.Reason != tt.reason {
				t.Errorf("%s (%s), want %s (%s)", s.Status, s.Reason, tt.status, tt.reason)
			}
		})
	}
}
