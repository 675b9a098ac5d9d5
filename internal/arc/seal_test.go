package arc

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/dkim"
)

// mail is a message that a test builds and seals. The canonical forms here are
// written anew, so that they do not share the mistakes of package dkim.
type mail struct {
	fields []dkim.Field // from the top
	body   string
}

// sealer adds sets to a mail. The zero values of what may vary are those of an
// ordinary server.
type sealer struct {
	domain, selector string
	key              crypto.Signer // nil: the RSA key of the golden cases

	instance  int    // 0: the next
	cv        string // "": as the RFC has it
	canon     string // "": relaxed/relaxed
	noCanon   bool   // c= is left out
	signed    string // "": from:to:subject
	results   string // "": dmarc=pass for the author
	messageX  string // further tags of the message signature
	sealX     string // further tags of the seal
	algorithm string // "": that of the key
}

func testMail() *mail {
	return &mail{
		fields: []dkim.Field{
			{Name: "From", Value: " Author <a@author.example>"},
			{Name: "To", Value: " list@list.example"},
			{Name: "Subject", Value: " A  subject \r\n\tfolded"},
		},
		body: "Hello,  list\r\n\r\nbye \r\n\r\n",
	}
}

func canonField(form string, f dkim.Field) string {
	if form == "simple" {
		return f.Name + ":" + f.Value + "\r\n"
	}
	words := strings.FieldsFunc(f.Value, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
	return strings.ToLower(strings.TrimSpace(f.Name)) + ":" + strings.Join(words, " ") + "\r\n"
}

func canonBody(form, body string) string {
	lines := strings.Split(strings.TrimSuffix(body, "\r\n"), "\r\n")
	for i := range lines {
		if form == "relaxed" {
			lead := ""
			if strings.HasPrefix(lines[i], " ") {
				lead = " "
			}
			lines[i] = strings.TrimRight(lead+strings.Join(strings.Fields(lines[i]), " "), " ")
		}
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	if len(lines) == 0 && form == "relaxed" {
		return ""
	}
	return strings.Join(lines, "\r\n") + "\r\n"
}

// add puts a set on top of the mail.
func (s sealer) add(t testing.TB, m *mail) {
	t.Helper()
	n := s.instance
	if n == 0 {
		n = len(m.find(fieldSeal)) + 1
	}
	or := func(s, other string) string {
		if s == "" {
			return other
		}
		return s
	}
	results := or(s.results, "mx."+s.domain+"; dmarc=pass (p=reject) header.from=author.example; spf=pass smtp.mailfrom=author.example")
	m.push(fieldResults, fmt.Sprintf(" i=%d; %s", n, results))
	m.push(fieldMessage, s.messageSignature(t, m, n, or(s.canon, "relaxed/relaxed"), or(s.signed, "from:to:subject")))
	cv := "pass"
	if n == 1 {
		cv = "none"
	}
	head := fmt.Sprintf(" i=%d; a=%s; cv=%s; d=%s; s=%s; t=1700000000;%s b=", n, s.alg(), or(s.cv, cv), s.domain, s.selector, s.sealX)
	var text strings.Builder
	for i := 1; i <= n; i++ {
		for _, kind := range []string{fieldResults, fieldMessage, fieldSeal} {
			for _, f := range m.find(kind) {
				if instanceOf(f) == i {
					text.WriteString(canonField("relaxed", f))
				}
			}
		}
	}
	text.WriteString(strings.TrimSuffix(canonField("relaxed", dkim.Field{Name: fieldSeal, Value: head}), "\r\n"))
	m.push(fieldSeal, head+s.sign(t, text.String()))
}

func (s sealer) alg() string {
	switch {
	case s.algorithm != "":
		return s.algorithm
	case s.isRSA():
		return "rsa-sha256"
	}
	return "ed25519-sha256"
}

func (s sealer) isRSA() bool {
	return s.key == nil
}

func (s sealer) messageSignature(t testing.TB, m *mail, n int, canon, signed string) string {
	header, body, _ := strings.Cut(canon, "/")
	sum := sha256.Sum256([]byte(canonBody(body, m.body)))
	value := fmt.Sprintf(" i=%d; a=%s; c=%s; d=%s; s=%s; h=%s;%s bh=%s; b=", n, s.alg(), canon, s.domain, s.selector,
		signed, s.messageX, base64.StdEncoding.EncodeToString(sum[:]))
	if s.noCanon {
		value = strings.Replace(value, " c="+canon+";", "", 1)
	}
	var text strings.Builder
	taken := map[string]int{}
	for name := range strings.SplitSeq(signed, ":") {
		all := m.find(name)
		taken[strings.ToLower(name)]++
		if i := len(all) - taken[strings.ToLower(name)]; i >= 0 {
			text.WriteString(canonField(header, all[i]))
		}
	}
	text.WriteString(strings.TrimSuffix(canonField(header, dkim.Field{Name: fieldMessage, Value: value}), "\r\n"))
	return value + s.sign(t, text.String())
}

func (s sealer) sign(t testing.TB, text string) string {
	digest := sha256.Sum256([]byte(text))
	key, hash := s.key, crypto.Hash(0)
	if s.isRSA() {
		key, hash = rsaKey(), crypto.SHA256
	}
	sig, err := key.Sign(rand.Reader, digest[:], hash)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig)
}

func (m *mail) push(name, value string) {
	m.fields = slices.Insert(m.fields, 0, dkim.Field{Name: name, Value: value})
}

func (m *mail) find(name string) []dkim.Field {
	var found []dkim.Field
	for _, f := range m.fields {
		if f.Is(name) {
			found = append(found, f)
		}
	}
	return found
}

func instanceOf(f dkim.Field) (n int) {
	_, after, _ := strings.Cut(f.Value, "i=")
	_, _ = fmt.Sscanf(after, "%d", &n)
	return n
}

func (m *mail) String() string {
	var b strings.Builder
	for _, f := range m.fields {
		b.WriteString(f.Name + ":" + f.Value + "\r\n")
	}
	return b.String() + "\r\n" + m.body
}

// testKey makes the same Ed25519 key for the same name.
func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// keyRecord is what the zone holds for a key.
func keyRecord(t testing.TB, key crypto.Signer) string {
	public, ok := key.Public().(ed25519.PublicKey)
	if ok {
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
}

func TestCanonicalFormsOfTheTests(t *testing.T) {
	m := testMail()
	for _, form := range []dkim.Canonicalization{dkim.Simple, dkim.Relaxed} {
		for _, f := range m.fields {
			if got, want := canonField(string(form), f), dkim.AppendField(nil, form, f); !bytes.Equal([]byte(got), want) {
				t.Errorf("%s: %q, want %q", form, got, want)
			}
		}
	}
}
