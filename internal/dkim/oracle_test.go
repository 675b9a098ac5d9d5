package dkim

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"

	reader "github.com/postern-mail/postern/internal/golden"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// theirs verifies a message with go-msgauth and says which signatures pass.
func theirs(t testing.TB, message string, zone *resolvertest.Table) []bool {
	t.Helper()
	results, err := msgauth.VerifyWithOptions(strings.NewReader(message), &msgauth.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) { return zone.LookupTXT(context.Background(), name) },
	})
	if err != nil {
		t.Fatalf("go-msgauth: %v", err)
	}
	passed := make([]bool, len(results))
	for i, r := range results {
		passed[i] = r.Err == nil
	}
	return passed
}

func ours(r Report) []bool {
	passed := make([]bool, len(r.Signatures))
	for i, s := range r.Signatures {
		passed[i] = s.Status == Pass
	}
	return passed
}

// knownDifferences are the golden cases in which go-msgauth comes to another
// verdict, and why it is wrong or differs.
func knownDifferences() map[string]string {
	return map[string]string{
		"d-ulabel":                 "asks the DNS for U-labels",
		"empty-name":               "takes an empty name in h=, which the grammar forbids",
		"key-beside-other-records": "refuses any second record; RFC 6376 section 3.6.2.2 leaves it open",
		"key-two":                  "the same",
		"key-two-other-kind":       "the same",
		"key-no-padding":           "refuses base64 without padding",
		"key-strict-below":         "does not know t=s",
		"key-tab":                  "refuses a tab in p=, which the grammar allows",
		"key-version-late":         "takes v= anywhere; section 3.6.1 wants it first",
		"pass-d-case":              "compares d= and i= with their case",
		"pass-i-holds-b":           "cuts everything that looks like b= out of the field",
		"pass-signed-signature":    "lets a signature sign itself, with its b=",
		"policy-rsa-5120":          "has no upper bound for RSA keys",
		"x-before-t":               "does not compare x= with t=",
	}
}

func TestGoldenAgainstMsgauth(t *testing.T) {
	known := knownDifferences()
	for _, c := range goldenCases(t, "*") {
		name, message := c.Name, c.Sections["message"]
		fields, body := split(t, message)
		zone := parseZone(c.Sections["zone"])
		a := ours(verify(t, &Verifier{Resolver: zone, Now: fixedNow, MaxSignatures: 100}, fields, body))
		b := theirs(t, message, zone)
		why, differs := known[name]
		if agree := slices.Equal(a, b); agree == differs {
			t.Errorf("%s: ours %v, go-msgauth %v, known difference: %q", name, a, b, why)
		}
		delete(known, name)
	}
	for name := range known {
		t.Errorf("known difference %s is no case", name)
	}
}

// oracleKeys are the golden keys of both kinds.
func oracleKeys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	keys := make(map[string]crypto.Signer)
	for _, name := range []string{"rsa2048", "ed25519"} {
		block, _ := pem.Decode([]byte(readFile(t, "testdata/golden/keys/"+name+".pem")))
		var key any
		var err error
		if block.Type == "PRIVATE KEY" {
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		} else {
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		}
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = key.(crypto.Signer)
	}
	return keys
}

func publicRecord(t testing.TB, key crypto.Signer) string {
	t.Helper()
	switch key := key.Public().(type) {
	case ed25519.PublicKey:
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(key)
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return "v=DKIM1; p=" + base64.StdEncoding.EncodeToString(der)
	default:
		t.Fatalf("key of type %T", key)
		return ""
	}
}

// corpus makes messages at random from parts that canonicalization cares about.
type corpus struct{ *rand.Rand }

func (c corpus) pick(parts ...string) string { return parts[c.IntN(len(parts))] }

func (c corpus) text(n int, parts ...string) string {
	var b strings.Builder
	for range c.IntN(n) {
		b.WriteString(c.pick(parts...))
	}
	return b.String()
}

func (c corpus) message() string {
	var b strings.Builder
	for range c.IntN(6) {
		b.WriteString(c.pick("Subject", "To", "X-A", "received", "CC") + c.pick("", "", " ") + ":" +
			c.text(8, " ", "\t", "word", "\r\n ", "\r\n\t", ":", ";", "b=", "\xe4") + "x\r\n")
	}
	b.WriteString("From: " + c.text(3, "Alice ", "\r\n ") + "<alice@example.com>\r\n\r\n")
	return b.String() + c.text(40, " ", "  ", "\t", "word", "a longer text", "\r\n", "\r\n\r\n", "\xff", "\x00")
}

func (c corpus) sign(t *testing.T, message string, keys map[string]crypto.Signer) string {
	t.Helper()
	forms := []msgauth.Canonicalization{msgauth.CanonicalizationSimple, msgauth.CanonicalizationRelaxed}
	name := c.pick("rsa2048", "ed25519")
	var b bytes.Buffer
	err := msgauth.Sign(&b, strings.NewReader(message), &msgauth.SignOptions{
		Domain: "example.com", Selector: name, Signer: keys[name],
		Identifier:             c.pick("", "@example.com", "joe@sub.example.com"),
		HeaderCanonicalization: forms[c.IntN(2)], BodyCanonicalization: forms[c.IntN(2)],
		HeaderKeys: strings.Fields(c.pick("From", "from from Subject To", "To From Subject Subject CC X-A X-None")),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// spoil changes a message as relays and forgers do, or not at all.
func (c corpus) spoil(message string) string {
	i := c.IntN(len(message))
	switch c.IntN(6) {
	case 0:
		return message[:i] + c.pick(" ", "\t", "x", "\r\n ", ";") + message[i:]
	case 1:
		return strings.Replace(message, c.pick(" ", "\t", "word", "x"), c.pick(" ", "  ", "\t"), 1)
	case 2:
		return c.pick("Received: by x\r\n", "Subject: y\r\n", "From: z\r\n") + message
	case 3:
		return message + c.pick("\r\n", " ", "x", "\r\n\r\n")
	default:
		return message
	}
}

// TestAgainstMsgauth compares verdicts on random messages that go-msgauth signed.
// Where the two may differ by design, the reason is in excused.
func TestAgainstMsgauth(t *testing.T) {
	keys := oracleKeys(t)
	zone := tableOf(nil)
	for name, key := range keys {
		zone.Add(name+"._domainkey.example.com", "TXT", publicRecord(t, key))
	}
	c := corpus{rand.New(rand.NewPCG(6376, 8463))}
	passed := 0
	for i := range 1000 {
		signed := c.sign(t, c.message(), keys)
		if c.IntN(4) == 0 {
			signed = c.sign(t, signed, keys)
		}
		message := c.spoil(signed)
		in := bufio.NewReader(strings.NewReader(message))
		fields, err := reader.Header[Field](in)
		body, _ := io.ReadAll(in)
		if err != nil || excused(message) {
			continue
		}
		a := ours(verify(t, &Verifier{Resolver: zone}, fields, string(body)))
		b := theirs(t, message, zone)
		if !slices.Equal(a, b) {
			t.Fatalf("message %d: ours %v, go-msgauth %v\n%q", i, a, b, message)
		}
		for _, ok := range a {
			if ok {
				passed++
			}
		}
	}
	if passed < 400 {
		t.Errorf("only %d signatures passed: the corpus tests nothing", passed)
	}
}

// excused reports messages on which go-msgauth is known to be wrong: it takes a
// CR alone for white space and turns a LF alone into a line end. Mail servers
// let neither through.
func excused(message string) bool {
	rest := strings.ReplaceAll(message, "\r\n", "")
	return strings.ContainsAny(rest, "\r\n")
}
