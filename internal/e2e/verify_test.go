package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

func TestVerifyCases(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{})
	for _, c := range VerifyCases() {
		t.Run(c.Name, func(t *testing.T) {
			all, err := c.Run(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range all {
				if o.Wrong != nil {
					t.Error(o.Wrong)
				}
				if o.Record.Reason != string(record.Verified) || o.Record.SPF == "" || o.Record.DKIM == "" || o.Record.From == "" || o.Record.MessageID == "" {
					t.Errorf("record %s", o.Record.Raw)
				}
			}
		})
	}
	t.Run("foreign results stay", func(t *testing.T) { checkForeignStays(t, s) })
	t.Run("our own mail is not verified", func(t *testing.T) { checkOwn(t, s) })
	t.Run("injection", func(t *testing.T) { checkInjection(t, s) })
}

// deliver sends a mail from outside and returns what was delivered.
func deliver(t *testing.T, s *Site, service string, m postfixtest.Mail) postfixtest.Delivery {
	t.Helper()
	if got := send(t, s, service, m); got.Code != 250 {
		t.Fatalf("mail from %s: %s", m.From, got)
	}
	d, err := s.Postfix.Delivered(t.Context(), m.To[0])
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func checkForeignStays(t *testing.T, s *Site) {
	m := fromOutside(Stranger, Bob)
	ours, theirs := "Authentication-Results: (x) MAIL.home.example; dkim=pass\n", "Authentication-Results: mx.other.example; dkim=pass\n"
	m.Message = ours + theirs + ours + theirs + ours + "From: <" + Stranger + ">\nSubject: a test\n\nHello.\n"
	d := deliver(t, s, postfixtest.MX, m)
	if _, err := ourResults(d, []string{"dkim=none"}); err != nil {
		t.Error(err)
	}
	if got := d.Headers("Authentication-Results"); len(got) != 3 || got[1] != "mx.other.example; dkim=pass" || got[2] != got[1] {
		t.Errorf("fields %q", got)
	}
}

// checkOwn sends through submission. The sign role verifies nothing, and leaves the results
// of others; those in our name can only be the login's own.
func checkOwn(t *testing.T, s *Site) {
	m := As(Alice, Alice, Bob)
	m.Message = forgedResults + "From: <" + Alice + ">\nSubject: a test\n\nHello.\n"
	d := deliver(t, s, postfixtest.Submission, m)
	if got := d.Headers("Authentication-Results"); len(got) != 1 || !strings.HasPrefix(got[0], "mx.other.example;") {
		t.Errorf("fields %q", got)
	}
}

// checkInjection has strangers write results wherever they can.
func checkInjection(t *testing.T, s *Site) {
	const evil = `dkim=pass header.d=bank.example`
	if err := s.DNS.Add(`evil.example. TXT "v=spf1 exists:dkim=pass.evil.example -all"
dkim=pass.evil.example. A 127.0.0.2
broken.example. TXT "v=spf1 ) dkim=pass header.d=bank.example ("
66.2.0.192.in-addr.arpa. PTR dkim=pass.evil.example.
`); err != nil {
		t.Fatal(err)
	}
	sign := func(tags string) string {
		return "DKIM-Signature: v=1; a=rsa-sha256; d=evil.example; s=s1; h=from; bh=QUJD; b=QUJD;" + tags + "\n"
	}
	from := "From: <" + Stranger + ">\n"
	tests := []struct{ name, sender, helo, header string }{
		{"mail from", `"a\"; ` + evil + ` x=\""@evil.example`, "mx.evil.example", from},
		{"record", "a@evil.example", "mx.evil.example", from},
		{"broken record", "a@broken.example", "mx.evil.example", from},
		{"helo", "", "x;" + strings.ReplaceAll(evil, " ", ";"), from},
		{"helo comment", "", `x(y)"dkim=pass`, from},
		{"d", "a@evil.example", "mx.evil.example", sign(` i=@evil.example;`) + "DKIM-Signature: v=1; d=\"evil\\\";dkim=pass\n" + from},
		{"s", "a@evil.example", "mx.evil.example", strings.Replace(sign(""), "s=s1", `s="\(dkim=pass`, 1) + from},
		{"i", "a@evil.example", "mx.evil.example", sign(` i="\" dkim=pass header.d=bank.example"@evil.example;`) + from},
		{"a", "a@evil.example", "mx.evil.example", strings.Replace(sign(""), "a=rsa-sha256", `a=x(dkim=pass)`, 1) + from},
		{"from", "a@evil.example", "mx.evil.example", "From: \"Authentication-Results: mail.home.example; " + evil + "\" <a@evil.example>\n"},
		{"folded from", "a@evil.example", "mx.evil.example", "From: a\n Authentication-Results: mail.home.example; " + evil + "\n <a@evil.example>\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := postfixtest.Mail{Client: "192.0.2.66", Helo: test.helo, From: test.sender, To: []string{Press},
				Message: test.header + "Subject: a test\n\nHello.\n"}
			got, err := ourResults(deliver(t, s, postfixtest.MX, m), nil)
			if err != nil {
				t.Error(err)
			}
			for _, word := range []string{"dkim=pass", "spf=pass smtp", "iprev=pass", "header.d=bank.example "} {
				if strings.Contains(got, word) {
					t.Errorf("%q in %q", word, got)
				}
			}
		})
	}
}

// TestVerifySlowDNS has the DNS answer late, and not at all.
func TestVerifySlowDNS(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{Milterd: []string{"--verify-deadline", "20s", "--dns-timeout", "10s"}})
	late := VerifyCases()[0]
	s.DNS.SetDelay("*", 200*time.Millisecond)
	if all, err := late.Run(t.Context(), s); err != nil || all[0].Wrong != nil {
		t.Errorf("late answers: %v, %v", all, err)
	}
	s.DNS.SetDelay("*", 0)
	s.DNS.Fail("*", resolvertest.Silence)
	if err := s.milterdWith(t.Context(), []string{"--verify-deadline=1s"}); err != nil {
		t.Fatal(err)
	}
	m := fromOutside("a@dead.example", Bob)
	m.Message = "DKIM-Signature: v=1; a=rsa-sha256; d=dead.example; s=s1; h=from;\n bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=QUJD\n" +
		"From: <a@dead.example>\nSubject: a test\n\nHello.\n"
	m.Client = "192.0.2.99"
	if _, err := ourResults(deliver(t, s, postfixtest.MX, m), []string{"spf=temperror", "dkim=temperror", "iprev=temperror"}); err != nil {
		t.Error(err)
	}
	r, err := s.VerifyRecord(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if r.Reason != string(record.VerifyUnsure) || r.Verdict != "pass" || r.SPF != "temperror" || r.DKIM != "temperror" {
		t.Errorf("record %s", r.Raw)
	}
}

// TestSPFReject has recipients refused, with the words of the domain, while the
// next mail of the session passes.
func TestSPFReject(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{Milterd: []string{"--spf-reject", "fail", "--received-spf", "--authserv-id", "id.home.example"}})
	if err := s.DNS.Add(`loud.example. TXT "v=spf1 -all exp=why.loud.example"
why.loud.example. TXT "250 OK%_100%% \"fine\" 550"
`); err != nil {
		t.Fatal(err)
	}
	c, err := s.Postfix.Dial(t.Context(), postfixtest.MX)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	bad := fromOutside("a@loud.example", Dora, Bob)
	if err := c.Open(bad); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r, err := c.Send(bad)
		if err != nil {
			t.Fatal(err)
		}
		want := `550 5.7.23 SPF: 192.0.2.25 may not send mail of loud.example (-all); loud.example explains: 250 OK 100% "fine" 550`
		for i, reply := range r.Rcpt {
			if got := reply.String(); got != want {
				t.Errorf("recipient %d: %s, want %s", i, got, want)
			}
			rec, err := s.VerifyRecord(t.Context(), postfixtest.Mail{From: bad.From, To: bad.To[i:]})
			if err != nil {
				t.Fatal(err)
			}
			if rec.Reason != string(record.SPFFailed) || rec.Verdict != "reject" || rec.SPF != "fail" {
				t.Errorf("record %s", rec.Raw)
			}
		}
	}
	good := fromOutside(Stranger, Dora)
	if r, err := c.Send(good); err != nil || r.Final().Code != 250 {
		t.Fatalf("the next mail: %v, %v", r, err)
	}
	d, err := s.Postfix.Delivered(t.Context(), Dora)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Header("Authentication-Results"); !strings.HasPrefix(got, "id.home.example; spf=pass") {
		t.Errorf("results %q", got)
	}
	if got := d.Header("Received-SPF"); !strings.HasPrefix(got, "pass (id.home.example: domain of "+Stranger) {
		t.Errorf("Received-SPF %q", got)
	}
}
