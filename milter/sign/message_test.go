package sign

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"errors"
	"io"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

func someKeysOf(t testing.TB, files ...string) *Keys {
	t.Helper()
	tree1 := make(map[string][]byte)
	for _, f := range files {
		if strings.Contains(f, "rsa") {
			tree1[f] = pkcs8(t, testRSA())
		} else {
			tree1[f] = pkcs8(t, testEd25519())
		}
	}
	return load(t, KeySource{Dir: tree(t, tree1), Group: -1})
}

func bothKeys(t testing.TB) *Keys {
	return someKeysOf(t, "example.com/rsa.private", "example.com/ed.private")
}

func fields(header string) []dkim.Field {
	var list []dkim.Field
	for line := range strings.SplitSeq(header, "|") {
		name, value, _ := strings.Cut(line, ":")
		list = append(list, dkim.Field{Name: name, Value: value})
	}
	return list
}

const plainHeader = "Received: from x|From: Alice <a@example.com>|To: b@example.org|Subject: a  folded\n\tone |Date: today|X-Other: y"

func sign(t testing.TB, s *Signer, header []dkim.Field, body string) Outcome {
	t.Helper()
	m := s.Message(t.Context(), header)
	// Odd pieces, so that boundaries fall anywhere.
	for len(body) > 0 {
		n := min(7, len(body))
		m.Write([]byte(body[:n]))
		body = body[n:]
	}
	return m.Close()
}

func signed(t testing.TB, r Outcome, want int) Outcome {
	t.Helper()
	if r.Reason != record.Signed || len(r.Fields) != want || r.Err != nil {
		t.Fatalf("got %+v, want %d signatures", r, want)
	}
	return r
}

// zone is the DNS with the records of some keys.
type zone struct {
	*resolvertest.Table
	texts map[string]string // by name
}

func zoneOf(t testing.TB, keys *Keys) zone {
	t.Helper()
	z := zone{resolvertest.NewTable(), make(map[string]string)}
	z.Relative = true
	for _, k := range keys.All() {
		text, err := k.Record()
		if err != nil {
			t.Fatal(err)
		}
		z.Add(k.Name(), "TXT", text)
		z.texts[k.Name()] = text
	}
	return z
}

func wire(header []dkim.Field, body string) string {
	var b bytes.Buffer
	for _, f := range header {
		b.Write(dkim.AppendField(nil, dkim.Simple, f))
	}
	return b.String() + "\r\n" + body
}

// verifyAll checks every signature with our verifier and with go-msgauth.
func verifyAll(t testing.TB, z zone, header []dkim.Field, body string, want int) {
	t.Helper()
	v := dkim.Verifier{Resolver: z}
	m := v.Start(t.Context(), header, "")
	m.Write([]byte(body))
	report := m.Finish()
	if len(report.Signatures) != want {
		t.Fatalf("%d signatures, want %d", len(report.Signatures), want)
	}
	for _, s := range report.Signatures {
		if s.Status != dkim.Pass {
			t.Errorf("%s %s: %s %s", s.Selector, s.Algorithm, s.Status, s.Reason)
		}
	}
	theirs, err := msgauth.VerifyWithOptions(strings.NewReader(wire(header, body)), &msgauth.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) { return z.LookupTXT(t.Context(), name) },
	})
	if err != nil || len(theirs) != want {
		t.Fatalf("go-msgauth: %d signatures, error %v", len(theirs), err)
	}
	for _, s := range theirs {
		if s.Err != nil {
			t.Errorf("go-msgauth: %s: %v", s.Domain, s.Err)
		}
	}
}

func TestSign(t *testing.T) {
	keys := bothKeys(t)
	s := New(Options{}, keys)
	bodies := map[string]string{
		"text":             "Hello,\r\n\r\n  world \t!  \r\n\r\n\r\n",
		"empty":            "",
		"blank lines":      "\r\n\r\n\r\n",
		"no final break":   "Hello",
		"4 MB blank lines": strings.Repeat("\r\n", 2<<20),
		"8-bit":            "\xe4\x00\xff\r\n",
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			m := s.Message(t.Context(), fields(plainHeader))
			m.Write([]byte(body))
			r := signed(t, m.Close(), 2)
			verifyAll(t, zoneOf(t, keys), append(r.Fields, fields(plainHeader)...), body, 2)
			if got := strings.Join(r.SignedBy, " "); got != "example.com/rsa example.com/ed" {
				t.Errorf("signed by %s", got)
			}
		})
	}
}

func TestSignHeaders(t *testing.T) {
	many := "From: a@example.com" + strings.Repeat("|To: b@example.org", 12)
	long := fields("From: a@example.com")
	long = append(long, dkim.Field{Name: "References", Value: strings.Repeat("\n <"+strings.Repeat("x", 60)+"@example.com>", 1500)})
	keys := bothKeys(t)
	s := New(Options{}, keys)
	for name, header := range map[string][]dkim.Field{
		"only From":         fields("From: a@example.com"),
		"repeated fields":   fields("From: a@example.com|To: x|Subject: 1|To: y|Subject: 2"),
		"many of one name":  fields(many),
		"names in odd case": fields("FROM: a@example.com|mIME-vERSION: 1.0"),
		"empty values":      fields("From: a@example.com|Subject:|To: "),
		"100 kB field":      long,
	} {
		t.Run(name, func(t *testing.T) {
			r := signed(t, sign(t, s, header, "x\r\n"), 2)
			verifyAll(t, zoneOf(t, keys), append(r.Fields, header...), "x\r\n", 2)
		})
	}
}

// Adding a field that is oversigned, changing one that is signed and changing
// the body break the signature; what relays do does not.
func TestSignatureCovers(t *testing.T) {
	keys := bothKeys(t)
	r := signed(t, sign(t, New(Options{}, keys), fields(plainHeader), "x\r\n"), 2)
	tests := []struct {
		header, body string
		want         dkim.Status
	}{
		{plainHeader, "x\r\n", dkim.Pass},
		{"Received: by y|" + plainHeader, "x \r\n\r\n", dkim.Pass},
		{strings.ReplaceAll(plainHeader, "X-Other: y", "X-Other: z"), "x\r\n", dkim.Pass},
		{strings.ReplaceAll(plainHeader, "a  folded", "another"), "x\r\n", dkim.Fail},
		{"From: x@evil.example|" + plainHeader, "x\r\n", dkim.Fail},
		{"Subject: x|" + plainHeader, "x\r\n", dkim.Fail},
		{"Reply-To: x|" + plainHeader, "x\r\n", dkim.Fail},
		{"Date: tomorrow|" + plainHeader, "x\r\n", dkim.Fail},
		{"Cc: x|" + plainHeader, "x\r\n", dkim.Fail},
		{"Content-Type: text/html|" + plainHeader, "x\r\n", dkim.Pass}, // relays add it, see TestRelays
		{plainHeader, "xx\r\n", dkim.Fail},
	}
	for _, tt := range tests {
		v := dkim.Verifier{Resolver: zoneOf(t, keys)}
		m := v.Start(t.Context(), append(r.Fields[:2:2], fields(tt.header)...), "")
		m.Write([]byte(tt.body))
		for _, s := range m.Finish().Signatures {
			if s.Status != tt.want {
				t.Errorf("%s with body %q: %s, want %s", tt.header, tt.body, s.Status, tt.want)
			}
		}
	}
}

func TestFieldForm(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	keys := bothKeys(t)
	clock := func() time.Time { return now }
	r := signed(t, sign(t, New(Options{Now: clock}, keys), fields(plainHeader), "x\r\n"), 2)
	for _, f := range r.Fields {
		if f.Name != "DKIM-Signature" || !strings.HasPrefix(f.Value, " v=1; a=") {
			t.Errorf("field %s:%s", f.Name, f.Value)
		}
		for i, line := range strings.Split(f.Name+":"+f.Value, "\r\n") {
			if len(line) > 77 || strings.Trim(line, " ") == "" || i > 0 && line[0] != ' ' || strings.ContainsAny(line, "\r\n\t") {
				t.Errorf("line %q of %d octets", line, len(line))
			}
		}
		for _, want := range []string{" c=relaxed/relaxed;", " d=example.com;", " t=1700000000;", " x=1700604800;", "h=From:From:To:To:Cc:"} {
			if !strings.Contains(strings.ReplaceAll(f.Value, "\r\n", ""), want) {
				t.Errorf("%q lacks %q", f.Value, want)
			}
		}
		if strings.Contains(f.Value, "l=") || strings.Contains(strings.ToLower(f.Value), "received") {
			t.Errorf("%q", f.Value)
		}
	}
	r = signed(t, sign(t, New(Options{Now: clock, Expire: -1}, keys), fields(plainHeader), "x\r\n"), 2)
	if strings.Contains(r.Fields[0].Value, "x=") {
		t.Errorf("x= although none was asked for: %q", r.Fields[0].Value)
	}
}

// Names that cannot be folded make long lines, not broken ones.
func TestLongNames(t *testing.T) {
	domain := strings.Repeat("a.", 90) + "example"
	selector := strings.Repeat("s.", 25) + "rsa"
	keys := someKeysOf(t, domain+"/"+selector+".private")
	header := fields("From: a@" + domain)
	r := signed(t, sign(t, New(Options{}, keys), header, "x\r\n"), 1)
	verifyAll(t, zoneOf(t, keys), append(r.Fields, header...), "x\r\n", 1)
	for line := range strings.SplitSeq(r.Fields[0].Value, "\r\n") {
		if len(line) > 77 && strings.TrimSpace(line) != "d="+domain+";" {
			t.Errorf("line %q of %d octets", line, len(line))
		}
	}
}

func TestNotSigned(t *testing.T) {
	s := New(Options{}, bothKeys(t))
	tests := []struct {
		name, header string
		want         record.Reason
		domain       string
	}{
		{"no From", "To: x@example.com", record.SignNoFrom, ""},
		{"two From", "From: a@example.com|from : b@example.com", record.SignSeveralFrom, ""},
		{"two domains", "From: a@example.com, b@example.org", record.SignSeveralDomains, ""},
		{"no address", "From: Alice", record.SignBadFrom, ""},
		{"no key", "From: a@example.org", record.SignNoKey, "example.org"},
		{"no key for a subdomain", "From: a@sub.example.com", record.SignNoKey, "sub.example.com"},
		{"parent of a key", "From: a@com", record.SignNoKey, "com"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := s.Message(t.Context(), fields(tt.header))
			if m.NeedsBody() {
				t.Error("asks for the body")
			}
			m.Write([]byte("x\r\n"))
			if r := m.Close(); r.Reason != tt.want || r.Domain != tt.domain || r.Fields != nil {
				t.Errorf("got %+v, want %s for %q", r, tt.want, tt.domain)
			}
		})
	}
	if r := sign(t, New(Options{}, nil), fields("From: a@example.com"), "x"); r.Reason != record.SignNoKey {
		t.Errorf("without keys: %+v", r)
	}
}

func TestSubdomains(t *testing.T) {
	keys := bothKeys(t)
	header := fields("From: a@deep.sub.example.com")
	r := signed(t, sign(t, New(Options{Subdomains: true}, keys), header, "x\r\n"), 2)
	if r.Domain != "deep.sub.example.com" || !strings.Contains(r.Fields[0].Value, "d=example.com;") {
		t.Errorf("got %+v", r)
	}
	verifyAll(t, zoneOf(t, keys), append(r.Fields, header...), "x\r\n", 2)
}

// Mail that comes back is signed again only if our signature no longer holds.
func TestAlreadySigned(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := New(Options{Now: func() time.Time { return now }}, bothKeys(t))
	const body = "Hello \r\n"
	first := signed(t, sign(t, s, fields(plainHeader), body), 2)
	relayed := append([]dkim.Field{{Name: "Received", Value: " by filter"}}, first.Fields...)
	relayed = append(relayed, fields(plainHeader)...)

	r := sign(t, s, relayed, body)
	if r.Reason != record.SignAlreadySigned || r.Fields != nil || r.Domain != "example.com" {
		t.Errorf("relayed: %+v", r)
	}
	// Only a key whose signature is missing signs.
	for i := range first.Fields {
		one := append(first.Fields[i:i+1:i+1], fields(plainHeader)...)
		r := signed(t, sign(t, s, one, body), 1)
		if r.SignedBy[0] != first.SignedBy[1-i] {
			t.Errorf("with the signature of %s: signed by %s", first.SignedBy[i], r.SignedBy)
		}
		if r := sign(t, s, append(r.Fields, one...), body); r.Reason != record.SignAlreadySigned {
			t.Errorf("with both again: %+v", r)
		}
	}
	signed(t, sign(t, s, relayed, body+"-- \r\na footer\r\n"), 2)
	signed(t, sign(t, s, append(relayed, dkim.Field{Name: "Subject", Value: " x"}), body), 2)

	foreign := append(first.Fields[:2:2], fields(plainHeader)...)
	foreign[0].Value = strings.ReplaceAll(foreign[0].Value, "d=example.com", "d=example.org")
	foreign[1].Value = strings.ReplaceAll(foreign[1].Value, "s=ed", "s=other")
	signed(t, sign(t, s, foreign, body), 2)

	now = now.Add(DefaultExpire + time.Second)
	signed(t, sign(t, s, relayed, body), 2)
}

// If our signature covers less than a new one would, the mail is signed again.
func TestSignedAgain(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	clock := func() time.Time { return now }
	options := func(expire time.Duration, headers ...string) Options {
		h, err := ParseHeaders(headers)
		if err != nil {
			t.Fatal(err)
		}
		return Options{Now: clock, Expire: expire, Headers: h}
	}
	const mail = "From: a@example.com|To: b@example.com|Subject: x|Date: d"
	tests := []struct {
		name   string
		before Options
		added  string // on top, since the first signature
		after  time.Duration
		again  bool
	}{
		{"nothing new", options(0), "Received: x|X-Spam: no|Authentication-Results: y", 0, false},
		{"list fields", options(0), "List-Id: <l.example.com>|List-Unsubscribe: <https://example.com/u>|List-Unsubscribe-Post: List-Unsubscribe=One-Click", 0, true},
		{"one list field", options(0), "List-Post: NO", 0, true},
		{"resent", options(0), "Resent-From: c@example.com|Resent-Date: d", 0, true},
		{"Sender", options(0), "Sender: l@example.com", 0, true},
		{"Message-ID", options(0), "Message-ID: <x@example.com>", 0, true},
		{"Content-Type", options(0), "MIME-Version: 1.0|Content-Type: text/plain", 0, true},
		{"a day and a bit left", options(0), "Received: x", 6*24*time.Hour - time.Minute, false},
		{"less than a day left", options(0), "Received: x", 6*24*time.Hour + time.Minute, true},
		{"expired", options(0), "Received: x", 8 * 24 * time.Hour, true},
		{"never expires", options(-1), "Received: x", 100 * 24 * time.Hour, false},
		{"by whoever signs From alone", options(0, "From"), "Received: x", 0, true},
		{"by whoever does not oversign", options(0, "From", "To", "Subject", "Date"), "Received: x", 0, true},
		{"by whoever signs more", options(0, "X-Mine", "+X-Yours", "+To", "+Cc", "+Subject", "+Date", "+Reply-To", "+Message-ID"), "Received: x", 0, false},
	}
	keys := bothKeys(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now = time.Unix(1_700_000_000, 0)
			first := signed(t, sign(t, New(tt.before, keys), fields(mail), "x\r\n"), 2)
			header := append(append(fields(tt.added), first.Fields...), fields(mail)...)
			now = now.Add(tt.after)
			s := New(Options{Now: clock}, keys)
			r := sign(t, s, header, "x\r\n")
			if !tt.again {
				if r.Reason != record.SignAlreadySigned {
					t.Errorf("%+v", r)
				}
				return
			}
			signed(t, r, 2)
			// The second time, the new signatures are enough.
			if r := sign(t, s, append(r.Fields, header...), "x\r\n"); r.Reason != record.SignAlreadySigned {
				t.Errorf("the third time: %+v", r)
			}
		})
	}
}

// Signatures that never had a day to live are enough for half of their life.
func TestSignedAgainShortLived(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	keys := bothKeys(t)
	s := New(Options{Now: func() time.Time { return now }, Expire: time.Hour}, keys)
	header := append(signed(t, sign(t, s, fields(plainHeader), "x\r\n"), 2).Fields, fields(plainHeader)...)
	now = now.Add(29 * time.Minute)
	if r := sign(t, s, header, "x\r\n"); r.Reason != record.SignAlreadySigned {
		t.Errorf("%+v", r)
	}
	now = now.Add(2 * time.Minute)
	signed(t, sign(t, s, header, "x\r\n"), 2)
}

// Other signatures at the top do not hide ours.
func TestAlreadySignedBeneathOthers(t *testing.T) {
	s := New(Options{}, bothKeys(t))
	first := signed(t, sign(t, s, fields(plainHeader), "x\r\n"), 2)
	var header []dkim.Field
	for i := range 20 {
		f := first.Fields[0]
		f.Value = strings.ReplaceAll(f.Value, "s=rsa", "s=other"+strconv.Itoa(i))
		header = append(header, f)
	}
	header = append(append(header, first.Fields...), fields(plainHeader)...)
	if r := sign(t, s, header, "x\r\n"); r.Reason != record.SignAlreadySigned {
		t.Errorf("got %+v", r)
	}
}

func TestLongLineNote(t *testing.T) {
	s := New(Options{}, bothKeys(t))
	line := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct {
		name, header, body string
		want               string
	}{
		{"body of 998", plainHeader, line(998) + "\r\n" + line(998), ""},
		{"body of 999", plainHeader, "a\r\n" + line(999) + "\r\nb\r\n", "999 octets"},
		{"a short line, then a body of 999", plainHeader, "a\r\n" + line(999), "999 octets"},
		{"long and short lines", plainHeader, strings.Repeat(line(998)+"\r\n"+line(70)+"\r\n", 50), ""},
		{"a long line among short ones", plainHeader, strings.Repeat(line(70)+"\r\n", 50) + line(5000) + "\r\n" + strings.Repeat(line(70)+"\r\n", 50), "5000 octets"},
		{"last line without an end", plainHeader, line(2000), "2000 octets"},
		{"header of 998", plainHeader + "|X: " + line(995), "", ""},
		{"header of 999", plainHeader + "|X: " + line(996) + "\n y", "", "999 octets"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			notes := strings.Join(signed(t, sign(t, s, fields(tt.header), tt.body), 2).Notes, " ")
			if (notes != "") != (tt.want != "") || !strings.Contains(notes, tt.want) {
				t.Errorf("notes %q, want %q", notes, tt.want)
			}
		})
	}
}

// brokenSigner is a hardware token that was pulled.
type brokenSigner struct{ crypto.Signer }

func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("token gone")
}

func TestBrokenKey(t *testing.T) {
	keys := bothKeys(t)
	keys.All()[0].Signer = brokenSigner{keys.All()[0].Signer}
	s := New(Options{}, keys)
	r := sign(t, s, fields(plainHeader), "x\r\n")
	if r.Reason != record.Signed || len(r.Fields) != 1 || r.Err == nil || !strings.Contains(r.Err.Error(), "ed._domainkey.example.com: token gone") {
		t.Errorf("one broken key: %+v", r)
	}
	keys.All()[1].Signer = brokenSigner{keys.All()[1].Signer}
	if r := sign(t, s, fields(plainHeader), "x\r\n"); r.Reason != record.SignFailed || r.Fields != nil || r.Err == nil {
		t.Errorf("both broken: %+v", r)
	}
}

func TestSetKeys(t *testing.T) {
	s := New(Options{}, bothKeys(t))
	m := s.Message(t.Context(), fields(plainHeader))
	s.SetKeys(someKeysOf(t, "example.org/ed.private"))
	signed(t, m.Close(), 2) // keeps its keys
	if r := sign(t, s, fields(plainHeader), ""); r.Reason != record.SignNoKey {
		t.Errorf("after the swap: %+v", r)
	}
	if got := names(s.Keys().All()); got != "ed/example.org" {
		t.Errorf("keys %q", got)
	}
}

func TestAbort(t *testing.T) {
	m := New(Options{}, bothKeys(t)).Message(t.Context(), fields(plainHeader))
	m.Write([]byte("x"))
	m.Abort()
	m.Write([]byte("y"))
	if r := m.Close(); r.Fields != nil {
		t.Errorf("signed after abort: %+v", r)
	}
}

// 50 MB of body allocate no more than 50 kB do.
func TestMemoryDoesNotGrow(t *testing.T) {
	s := New(Options{}, bothKeys(t))
	chunk := []byte(strings.Repeat(strings.Repeat("word  ", 12)+"\r\n", 900))
	allocated := func(chunks int) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m := s.Message(t.Context(), fields(plainHeader))
		for range chunks {
			m.Write(chunk)
		}
		signed(t, m.Close(), 2)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	allocated(1)
	small, large := allocated(1), allocated(10<<20/len(chunk))
	if large > small+64<<10 {
		t.Errorf("%d octets allocated for 10 MB, %d for 64 kB", large, small)
	}
}

func TestParseHeaders(t *testing.T) {
	for _, bad := range [][]string{{"Received"}, {"+DKIM-Signature"}, {""}, {"+"}, {"?"}, {"+?x"}, {"a b"}, {"x:y"}, {"To", "to"},
		{"\u00e4"}, {strings.Repeat("x", 71)}, make([]string, 101)} {
		if _, err := ParseHeaders(bad); err == nil {
			t.Errorf("%.40q: no error", bad)
		}
	}
	h, err := ParseHeaders([]string{"+Subject", "From", "X-Mine"})
	if err != nil {
		t.Fatal(err)
	}
	header := "From: a@example.com|Subject: s|X-Mine: m|To: t"
	r := signed(t, sign(t, New(Options{Headers: h}, bothKeys(t)), fields(header), ""), 2)
	if !strings.Contains(r.Fields[0].Value, "h=From:From:Subject:Subject:X-Mine;") {
		t.Errorf("field %q", r.Fields[0].Value)
	}
}

func TestOversigned(t *testing.T) {
	tests := []struct {
		list, header, want string
	}{
		{"+To,?Date,X", "", "From:From:To"},
		{"+To,?Date,X", "|To: t|Date: d|X: x", "From:From:To:To:Date:Date:X"},
		{"?to,?date", "|To: t|To: u", "From:From:to:to:to"},
		{"?From", "", "From:From"},
		// Relays name recipients in mail that names none.
		{"+To,+Cc", "", "From:From:Cc"},
		{"+To,+Cc", "|Cc: c", "From:From:To:Cc:Cc"},
		{"+To,+Cc", "|To: t", "From:From:To:To:Cc"},
	}
	for _, tt := range tests {
		h, err := ParseHeaders(strings.Split(tt.list, ","))
		if err != nil {
			t.Fatal(err)
		}
		names, _ := h.pick(fields("From: a@example.com" + tt.header))
		if got := strings.Join(names, ":"); got != tt.want {
			t.Errorf("%s on %q: %s, want %s", tt.list, tt.header, got, tt.want)
		}
	}
}

func FuzzSign(f *testing.F) {
	f.Add("From", " a@example.com", "x")
	f.Add("Subject", " \n\t\n ", "\r\n \r")
	f.Add("DKIM-Signature", " v=1; d=example.com; s=ed; b=", "")
	f.Add("Content-Type ", "\x00", "\n")
	keys := someKeysOf(f, "example.com/ed.private")
	s := New(Options{}, keys)
	z := zoneOf(f, keys)
	f.Fuzz(func(t *testing.T, name, value, body string) {
		header := []dkim.Field{{Name: "From", Value: " a@example.com"}, {Name: name, Value: value}}
		r := sign(t, s, header, body)
		if len(r.Fields) == 0 {
			if r.Reason == record.Signed {
				t.Fatalf("signed with nothing: %+v", r)
			}
			return
		}
		v := dkim.Verifier{Resolver: z}
		m := v.Start(t.Context(), append(r.Fields, header...), "example.com")
		m.Write([]byte(body))
		if got := m.Finish().Signatures[0]; got.Status != dkim.Pass {
			t.Fatalf("own signature: %s %s", got.Status, got.Reason)
		}
	})
}

// BenchmarkSign signs mails of 10 KB and 25 fields, and reports processor time: a
// mail's, that of the bare private key operations, measured before and after, and
// their ratio.
func BenchmarkSign(b *testing.B) {
	header := fields(plainHeader + strings.Repeat("|X-Header: value of some length that is not signed", 20))
	mail := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog, and goes home to sleep.\r\n", 10<<10/70))
	for _, kind := range []struct {
		name  string
		files []string
	}{
		{"ed25519", []string{"example.com/ed.private"}},
		{"rsa", []string{"example.com/rsa.private"}},
		{"both", []string{"example.com/ed.private", "example.com/rsa.private"}},
	} {
		keys := someKeysOf(b, kind.files...)
		s := New(Options{}, keys)
		b.Run(kind.name, func(b *testing.B) {
			b.ReportAllocs()
			before := cpu(b, func() { signBare(b, keys) })
			took := cpu(b, func() {
				for range benchRounds {
					m := s.Message(b.Context(), header)
					m.Write(mail)
					m.Close()
				}
			})
			floor := min(before, cpu(b, func() { signBare(b, keys) }))
			for b.Loop() {
				m := s.Message(b.Context(), header)
				m.Write(mail)
				m.Close()
			}
			b.ReportMetric(float64(took.Microseconds())/benchRounds, "cpu-µs")
			b.ReportMetric(float64(floor.Microseconds())/benchRounds, "floor-cpu-µs")
			b.ReportMetric(float64(took)/float64(floor), "x-floor")
		})
	}
}

const benchRounds = 200

// signBare makes only the private key operations of signing.
func signBare(b *testing.B, keys *Keys) {
	digest := make([]byte, 32)
	for range benchRounds {
		for _, key := range keys.All() {
			if _, err := key.sign(rand.Reader, digest); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// cpu is the processor time that f takes, the best of five.
func cpu(b *testing.B, f func()) time.Duration {
	b.Helper()
	best := time.Duration(1<<63 - 1)
	for range 5 {
		var before, after syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
			b.Fatal(err)
		}
		f()
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
			b.Fatal(err)
		}
		best = min(best, time.Duration(after.Utime.Nano()-before.Utime.Nano()+after.Stime.Nano()-before.Stime.Nano()))
	}
	return best
}
