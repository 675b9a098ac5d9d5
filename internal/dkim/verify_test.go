package dkim

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	reader "github.com/postern-mail/postern/internal/golden"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// keyFailures are the words after "!" of a zone, as a Table has them.
var keyFailures = map[string]string{"temporary": "WRAPPED", "timeout": "TIMEOUT", "refused": "REFUSED", "other": "OTHER"}

// tableOf is DNS with these TXT records; a name with none of them answers with
// nothing.
func tableOf(records map[string][]string) *resolvertest.Table {
	dns := resolvertest.NewTable()
	dns.Relative = true
	for name, all := range records {
		if len(all) == 0 {
			dns.Add(name, "EMPTY", "")
		}
		for _, record := range all {
			if failure, ok := strings.CutPrefix(record, "!"); ok {
				dns.Add(name, keyFailures[failure], "")
				continue
			}
			dns.Add(name, "TXT", record)
		}
	}
	return dns
}

// parseZone reads lines of a name and a record, or "!" and a failure.
func parseZone(text string) *resolvertest.Table {
	records := map[string][]string{}
	for line := range strings.Lines(text) {
		name, record, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		records[name] = append(records[name], record)
	}
	return tableOf(records)
}

// split cuts a message into header and body.
func split(t testing.TB, message string) ([]Field, string) {
	t.Helper()
	r := bufio.NewReader(strings.NewReader(message))
	fields, err := reader.Header[Field](r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return fields, string(body)
}

func fixedNow() time.Time { return time.Unix(1_600_000_000, 0) }

func verify(t testing.TB, v *Verifier, fields []Field, body string) Report {
	t.Helper()
	m := v.Start(t.Context(), fields, "example.com")
	for len(body) > 0 {
		n := min(len(body), 5000)
		m.Write([]byte(body[:n]))
		body = body[n:]
	}
	return m.Finish()
}

func (s Signature) line() string {
	return strings.TrimSpace(fmt.Sprintf("%s d=%s i=%s s=%s a=%s %s", s.Status, s.Domain, s.Identity, s.Selector, s.Algorithm, s.Reason))
}

func (r Report) lines() string {
	var lines []string
	for _, s := range r.Signatures {
		lines = append(lines, s.line())
	}
	if r.Skipped > 0 {
		lines = append(lines, fmt.Sprintf("skipped %d", r.Skipped))
	}
	if lines == nil {
		return string(r.Status())
	}
	return strings.Join(lines, "\n")
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The golden cases are in testdata/golden, each as a message, a zone, the
// expected results and why.
func TestGolden(t *testing.T) {
	cases := goldenCases(t, "*")
	if len(cases) < 100 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			zone := parseZone(c.Sections["zone"])
			fields, body := split(t, c.Sections["message"])
			got := verify(t, &Verifier{Resolver: zone, Now: fixedNow}, fields, body).lines()
			if want := strings.TrimSpace(c.Sections["want"]); got != want {
				t.Errorf("%sgot\n%s\nwant\n%s", c.Sections["why"], got, want)
			}
		})
	}
}

// The keys of RFC 6376 appendix C and RFC 8463 appendix A.2.
func rfcZone() *resolvertest.Table {
	const (
		rsaKey = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYt" +
			"IxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"
		testKey = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/b" +
			"yYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB"
		edKey = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
	)
	return tableOf(map[string][]string{
		"brisbane._domainkey.example.com":          {rsaKey},
		"test._domainkey.football.example.com":     {testKey},
		"brisbane._domainkey.football.example.com": {edKey},
	})
}

const rfcMail = `From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
`

func TestRFC6376Vector(t *testing.T) {
	mail := `DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
` + rfcMail
	checkVector(t, mail, "pass d=example.com i=joe@football.example.com s=brisbane a=rsa-sha256")
}

func TestRFC8463Vector(t *testing.T) {
	mail := `DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
` + rfcMail
	checkVector(t, mail, "pass d=football.example.com i=@football.example.com s=brisbane a=ed25519-sha256\n"+
		"pass d=football.example.com i=@football.example.com s=test a=rsa-sha256")
}

// checkVector verifies a mail with LF line ends, as files have them and with the
// folding that Postfix hands over.
func checkVector(t *testing.T, mail, want string) {
	t.Helper()
	data, err := io.ReadAll(NewCRLFReader(strings.NewReader(mail)))
	if err != nil {
		t.Fatal(err)
	}
	fields, body := split(t, string(data))
	v := &Verifier{Resolver: rfcZone(), Now: fixedNow}
	if got := verify(t, v, fields, body).lines(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for i := range fields {
		fields[i].Value = strings.ReplaceAll(fields[i].Value, "\r\n", "\n")
	}
	if got := verify(t, v, fields, body).lines(); got != want {
		t.Errorf("folded with LF: got\n%s\nwant\n%s", got, want)
	}
}

// golden returns the parts of a golden case that passes.
func golden(t testing.TB, name string) ([]Field, string, *resolvertest.Table) {
	t.Helper()
	c := goldenCases(t, name)[0]
	fields, body := split(t, c.Sections["message"])
	return fields, body, parseZone(c.Sections["zone"])
}

// goldenCases are the cases whose names match a pattern.
func goldenCases(t testing.TB, pattern string) []reader.Case {
	t.Helper()
	return reader.Siblings(t, "testdata/golden/"+pattern+".eml", "zone", "want", "why")
}

// An internationalized s= is looked up as A-labels (RFC 8616).
func TestULabelSelector(t *testing.T) {
	fields, body, original := golden(t, "pass-relaxed")
	key, err := original.LookupTXT(t.Context(), "s1._domainkey.example.com")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(fields, func(f Field) bool { return f.Is(FieldName) })
	for selector, want := range map[string]string{
		"bücher.s1": "fail d=example.com i=@example.com s=xn--bcher-kva.s1 a=rsa-sha256 signature did not verify",
		"مثال":      "fail d=example.com i=@example.com s=xn--mgbh0fb a=rsa-sha256 signature did not verify",
		"S1":        "fail d=example.com i=@example.com s=S1 a=rsa-sha256 signature did not verify",
		"bü cher":   "fail d=example.com i=@example.com s=xn--bcher-kva a=rsa-sha256 signature did not verify",
		"b\xfccher": "permerror d=example.com i=@example.com s=b\xfccher a=rsa-sha256 s= is not a selector",
	} {
		header := slices.Clone(fields)
		header[i].Value = strings.Replace(header[i].Value, "s=s1;", "s="+selector+";", 1)
		zone := tableOf(map[string][]string{"s1._domainkey.example.com": key, "xn--bcher-kva.s1._domainkey.example.com": key,
			"xn--bcher-kva._domainkey.example.com": key, "xn--mgbh0fb._domainkey.example.com": key})
		if got := verify(t, &Verifier{Resolver: zone, Now: fixedNow}, header, body).lines(); got != want {
			t.Errorf("%q: got  %s\nwant %s", selector, got, want)
		}
	}
}

func TestReportValues(t *testing.T) {
	fields, body, zone := golden(t, "x-future")
	s := verify(t, &Verifier{Resolver: zone, Now: fixedNow}, fields, body).Signatures[0]
	if s.KeyBits != 2048 || s.Testing || s.Index != 0 || len(s.B) != 8 || s.Expires.Unix() != 9999999999 || !s.Time.IsZero() {
		t.Errorf("got %+v", s)
	}
	if got := strings.Join(s.Signed, " "); got != "from to subject date" {
		t.Errorf("signed %q", got)
	}
	fields, body, zone = golden(t, "dns-temporary")
	report := verify(t, &Verifier{Resolver: zone, Now: fixedNow}, fields, body)
	if s := report.Signatures[0]; s.Err == nil || report.Status() != TempError {
		t.Errorf("got %+v", s)
	}
}

func TestReportStatus(t *testing.T) {
	tests := []struct {
		statuses []Status
		want     Status
	}{
		{nil, None},
		{[]Status{Fail, Pass}, Pass},
		{[]Status{Policy, Fail}, Policy},
	}
	for _, tt := range tests {
		var r Report
		for _, s := range tt.statuses {
			r.Signatures = append(r.Signatures, Signature{Status: s})
		}
		if got := r.Status(); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.statuses, got, tt.want)
		}
	}
}

func TestShortenB(t *testing.T) {
	texts := []string{"abcdefghijkl", "abcdefghiXkl", "zz", "abcdefghijkl"}
	checks := make([]*check, len(texts))
	for i, text := range texts {
		checks[i] = &check{parsed: &parsed{text: text}}
	}
	got := make([]Signature, len(texts))
	shortenB(got, checks)
	for i, want := range []string{"abcdefghijkl", "abcdefghiX", "zz", "abcdefghijkl"} {
		if got[i].B != want {
			t.Errorf("%d: got %q, want %q", i, got[i].B, want)
		}
	}
}

func TestExpirySkew(t *testing.T) {
	fields, body, zone := golden(t, "x-passed")
	at := func(seconds int64, skew time.Duration) Status {
		v := &Verifier{Resolver: zone, Skew: skew, Now: func() time.Time { return time.Unix(1_000_000_000+seconds, 0) }}
		return verify(t, v, fields, body).Signatures[0].Status
	}
	for _, tt := range []struct {
		seconds int64
		skew    time.Duration
		want    Status
	}{{0, 0, Pass}, {1, 0, PermError}, {60, time.Minute, Pass}, {61, time.Minute, PermError}} {
		if got := at(tt.seconds, tt.skew); got != tt.want {
			t.Errorf("%d s late, skew %v: got %s, want %s", tt.seconds, tt.skew, got, tt.want)
		}
	}
}

func TestDNSFailures(t *testing.T) {
	fields, body, _ := golden(t, "pass-relaxed")
	for record, want := range map[string]Status{"!temporary": TempError, "!timeout": TempError, "!refused": PermError, "!other": TempError} {
		zone := tableOf(map[string][]string{"s1._domainkey.example.com": {record}})
		if got := verify(t, &Verifier{Resolver: zone, Now: fixedNow}, fields, body).Signatures[0]; got.Status != want || got.Err == nil {
			t.Errorf("%s: got %s %v, want %s", record, got.Status, got.Err, want)
		}
	}
	empty := tableOf(map[string][]string{"s1._domainkey.example.com": nil})
	if got := verify(t, &Verifier{Resolver: empty, Now: fixedNow}, fields, body).Signatures[0]; got.Status != PermError || got.Reason != "no key" {
		t.Errorf("no data: got %s %s", got.Status, got.Reason)
	}
}

// slowDNS never answers.
type slowDNS struct{}

func (slowDNS) LookupTXT(ctx context.Context, _ string) ([]string, error) {
	<-ctx.Done()
	return nil, &net.DNSError{Err: ctx.Err().Error(), IsTimeout: true}
}

// All lookups of a message share one budget, which begins with the body.
func TestDNSBudget(t *testing.T) {
	fields, body, _ := golden(t, "many-aligned-first")
	synctest.Test(t, func(t *testing.T) {
		v := &Verifier{Resolver: slowDNS{}, DNSBudget: 3 * time.Second, Now: fixedNow}
		start := time.Now()
		m := v.Start(context.Background(), fields, "example.com")
		time.Sleep(2 * time.Second)
		m.Write([]byte(body))
		report := m.Finish()
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		for _, s := range report.Signatures {
			if s.Status != TempError {
				t.Errorf("got %s", s.line())
			}
		}
	})
}

func TestCancel(t *testing.T) {
	fields, _, _ := golden(t, "pass-relaxed")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		m := (&Verifier{Resolver: slowDNS{}, Now: fixedNow}).Start(ctx, fields, "")
		cancel()
		if got := m.Finish().Signatures[0].Status; got != TempError {
			t.Errorf("got %s", got)
		}
		// Close ends the lookups of a message that is given up.
		(&Verifier{Resolver: slowDNS{}, Now: fixedNow}).Start(context.Background(), fields, "").Close()
	})
}

// The verifier asks for a key once.
func TestLookups(t *testing.T) {
	for name, want := range map[string]int{"pass-two": 2, "policy-l": 1, "policy-sha1": 0, "x-passed": 0, "none": 0, "many-aligned-first": 5} {
		fields, body, zone := golden(t, name)
		// The same signature twice is one question.
		if name == "pass-two" {
			fields = append(fields[:1:1], fields...)
		}
		v := &Verifier{Resolver: zone, Now: fixedNow}
		m := v.Start(t.Context(), fields, "example.com")
		if m.NeedsBody() != (want > 0) {
			t.Errorf("%s: needs body %v", name, m.NeedsBody())
		}
		m.Write([]byte(body))
		m.Finish()
		if got := len(zone.Asked()); got != want {
			t.Errorf("%s: %d questions, want %d", name, got, want)
		}
	}
}

// A hundred signatures cannot hide the one that counts, nor crowd it out by
// being broken.
func TestManySignatures(t *testing.T) {
	fields, body, zone := golden(t, "pass-relaxed")
	var header []Field
	for i := range 100 {
		f := fields[0]
		f.Value = strings.ReplaceAll(f.Value, "d=example.com", fmt.Sprintf("d=d%d.example", i))
		if i%2 == 0 {
			f.Value = strings.ReplaceAll(fields[0].Value, "v=1", "v=2")
		}
		header = append(header, f)
	}
	header = append(header, fields...)
	for _, limit := range []int{0, 1, 200} {
		report := verify(t, &Verifier{Resolver: zone, Now: fixedNow, MaxSignatures: limit}, header, body)
		if want := min(101, max(limit, 5*(1-min(limit, 1)))); len(report.Signatures) != want || report.Skipped != 101-want {
			t.Errorf("limit %d: %d signatures, %d skipped", limit, len(report.Signatures), report.Skipped)
		}
		if report.Status() != Pass {
			t.Errorf("limit %d: %s", limit, report.lines())
		}
	}
}

func TestRank(t *testing.T) {
	for domain, want := range map[string]int{"example.com": 0, "mail.example.com": 1, "com": 1, "example.org": 2, "notexample.com": 2} {
		c := &check{parsed: &parsed{Signature: Signature{Domain: domain}}}
		if got := c.rank("example.com"); got != want {
			t.Errorf("%s: got %d, want %d", domain, got, want)
		}
	}
	c := &check{parsed: &parsed{Signature: Signature{Domain: "example.com"}}, refused: permError("x")}
	if c.rank("example.com") != 3 {
		t.Error("a refused signature comes first")
	}
}

func TestWant(t *testing.T) {
	fields, body, zone := golden(t, "pass-two")
	v := &Verifier{Resolver: zone, Now: fixedNow, Want: func(_, selector string) bool { return selector == "e1" }}
	if got := verify(t, v, fields, body); len(got.Signatures) != 1 || got.Signatures[0].Selector != "e1" || got.Skipped != 0 {
		t.Errorf("got %s", got.lines())
	}
}

func TestLimits(t *testing.T) {
	fields, body, zone := golden(t, "pass-relaxed")
	v := &Verifier{Resolver: zone, Now: fixedNow}
	change := func(old, new string) []Field {
		changed := append([]Field(nil), fields...)
		changed[0].Value = strings.Replace(changed[0].Value, old, new, 1)
		return changed
	}
	tests := []struct {
		name   string
		fields []Field
		want   string
	}{
		{"names", change("h=from", "h=from"+strings.Repeat(":x", MaxSignedNames)), "too many names in h="},
		{"size", change("h=from", "z="+strings.Repeat("x", maxSignature)+"; h=from"), "signature field too long"},
		{"tags", change("v=1;", tagsTo(65)+"v=1;"), "signature syntax: too many tags"},
		{"control character", change("v=1;", "v=1; n=\x01;"), "signature syntax: control character in a tag"},
		{"fields", append(fields[:5:5], make([]Field, MaxFields)...), "too many header fields"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := verify(t, v, tt.fields, body).Signatures[0]
			if s.Status != PermError || s.Reason != tt.want {
				t.Errorf("got %s %s, want %s", s.Status, s.Reason, tt.want)
			}
		})
	}
	zone.Remove("s1._domainkey.example.com")
	zone.Add("s1._domainkey.example.com", "TXT", "v=DKIM1; n="+strings.Repeat("x", maxKeyRecord)+"; p=")
	if s := verify(t, v, fields, body).Signatures[0]; s.Reason != "key record too long" {
		t.Errorf("got %s %s", s.Status, s.Reason)
	}
}

func tagsTo(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "t%d=;", i)
	}
	return b.String()
}

func TestCRLFReader(t *testing.T) {
	const text = "a\nb\r\nc\r\rd\n\n"
	for size := 1; size < 8; size++ {
		r, buf := NewCRLFReader(strings.NewReader(text)), make([]byte, size)
		var got bytes.Buffer
		if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{r}, buf); err != nil {
			t.Fatal(err)
		}
		if want := "a\r\nb\r\nc\r\rd\r\n\r\n"; got.String() != want {
			t.Errorf("in reads of %d: got %q, want %q", size, got.String(), want)
		}
	}
}
