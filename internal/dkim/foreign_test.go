package dkim

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"net"
	"strings"
	"testing"
)

// foreignZone answers every question with the same records or error.
type foreignZone struct {
	records []string
	err     error
}

func (z foreignZone) LookupTXT(context.Context, string) ([]string, error) { return z.records, z.err }

func TestParseForeign(t *testing.T) {
	const good = " i=1; a=ed25519-sha256; d=Example.COM; s=sel; t=1; cv=none; x-y; b=QUJD"
	tests := []struct{ name, value, err string }{
		{"good", strings.Replace(good, " x-y;", "", 1), ""},
		{"bad tag", good, "tag"},
		{"no a", " d=example.com; s=sel; b=QUJD", "no a="},
		{"no d", " a=rsa-sha256; s=sel; b=QUJD", "no d="},
		{"no s", " a=rsa-sha256; d=example.com; b=QUJD", "no s="},
		{"empty b", " a=rsa-sha256; d=example.com; s=sel; b=", "no b="},
		{"bad b", " a=rsa-sha256; d=example.com; s=sel; b=!", "b= is not base64"},
		{"bad d", " a=rsa-sha256; d=exa mple..com; s=sel; b=QUJD", "d= is not a domain"},
		{"weak", " a=rsa-sha1; d=example.com; s=sel; b=QUJD", "too weak"},
		{"l", " a=rsa-sha256; d=example.com; s=sel; l=1; b=QUJD", "l= leaves"},
		{"bad t", " a=rsa-sha256; d=example.com; s=sel; t=; b=QUJD", "t= is not a time"},
		{"too long", " a=rsa-sha256; d=example.com; s=sel; b=" + strings.Repeat("A", maxSignature), "field too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := ParseForeign(Field{Name: "X-Seal", Value: tt.value}, 3)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			cv, ok := f.Tag("cv")
			if err != nil || f.KeyName() != "sel._domainkey.example.com" || f.Signature().Index != 3 || cv != "none" || !ok {
				t.Errorf("got %+v, %v", f.Signature(), err)
			}
			if got := f.Unsigned().Value; !strings.HasSuffix(got, "b=") {
				t.Errorf("unsigned: %q", got)
			}
		})
	}
}

func TestForeignMessage(t *testing.T) {
	hash := base64.StdEncoding.EncodeToString(make([]byte, sha256.Size))
	tests := []struct{ name, tags, err string }{
		{"good", "h=From:To; c=relaxed/relaxed; bh=" + hash, ""},
		{"default forms", "h=From; bh=" + hash, ""},
		{"empty c", "h=From; c=; bh=" + hash, "c= is empty"},
		{"bad c", "h=From; c=loose; bh=" + hash, "unknown canonicalization"},
		{"no From", "h=To; bh=" + hash, "From is not signed"},
		{"empty name", "h=From:; bh=" + hash, ""},
		{"no names", "h=; bh=" + hash, ""},
		{"no h", "bh=" + hash, "no h="},
		{"empty name without From", "h=To::; bh=" + hash, "From is not signed"},
		{"short bh", "h=From; bh=QUJD", "bh= is not"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := ParseForeign(Field{Name: "X-Seal", Value: " a=rsa-sha256; d=example.com; s=sel; b=QUJD; " + tt.tags}, 0)
			if err != nil {
				t.Fatal(err)
			}
			err = f.ReadMessage()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || !f.MatchesBody(Sums{f.Body(): {}}) || f.MatchesBody(Sums{f.Body(): {Hash: [sha256.Size]byte{1}}}) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestForeignVerify(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	other := ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", ed25519.SeedSize)))
	record := func(k ed25519.PrivateKey) string {
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(k.Public().(ed25519.PublicKey))
	}
	digest := sha256.Sum256([]byte("text"))
	f, err := ParseForeign(Field{Name: "X-Seal", Value: " a=ed25519-sha256; d=example.com; s=sel; b=" +
		base64.StdEncoding.EncodeToString(ed25519.Sign(key, digest[:]))}, 0)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		zone   foreignZone
		status Status
		reason string
	}{
		{"pass", foreignZone{records: []string{record(key)}}, Pass, ""},
		{"second key", foreignZone{records: []string{record(other), record(key)}}, Pass, ""},
		{"other key", foreignZone{records: []string{record(other)}}, Fail, "signature did not verify"},
		{"refused and other key", foreignZone{records: []string{record(other), "s=web; " + record(key)}}, Fail, "signature did not verify"},
		{"refused", foreignZone{records: []string{"k=ed25519; s=web; p=" + strings.SplitAfter(record(key), "p=")[1]}}, PermError, "key is not for email"},
		{"no key", foreignZone{}, PermError, "no key"},
		{"absent", foreignZone{err: &net.DNSError{IsNotFound: true}}, PermError, "no key"},
		{"servfail", foreignZone{err: &net.DNSError{IsTemporary: true}}, TempError, "the DNS lookup of the key failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, reason, err := LookupKeys(t.Context(), tt.zone, f.KeyName()).Verify(f, digest)
			if status != tt.status || reason != tt.reason || (err != nil) != (tt.zone.err != nil) {
				t.Errorf("got %s %q %v, want %s %q", status, reason, err, tt.status, tt.reason)
			}
		})
	}
}
