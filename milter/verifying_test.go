package milter_test

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/verify"
	"github.com/postern-mail/postern/milter/wire/wiretest"
)

const verifyZone = `example.org. TXT "v=spf1 ip4:192.0.2.1 -all"
fail.example. TXT "v=spf1 -all"
client.example. A 192.0.2.1
1.2.0.192.in-addr.arpa. PTR client.example.
`

const forgedMessage = "Authentication-Results: mta.example; dkim=pass\r\nAuthentication-Results: other.example; dkim=pass\r\n" +
	"Authentication-Results: MTA.example; dkim=pass\r\nFrom: <a@example.org>\r\nMessage-ID: <1@example.org>\r\n\r\nHello\r\n"

// verifying serves the verify role.
func verifying(t *testing.T, o verify.Options) (string, *ledger) {
	t.Helper()
	zone := resolvertest.NewZone(t, verifyZone)
	zone.Fail("down.example", resolvertest.ServFail)
	o.Resolver = zone
	return start(t, milter.NewVerifying(verify.New(o)), milter.BySession)
}

func openVerifying(t *testing.T, path string) *wiretest.Client {
	c := wiretest.Dial(t, "unix", path)
	c.Open(wiretest.Session{Name: "client.example", Client: client, Helo: "helo.example", Macros: []string{"j", "mta.example"}})
	return c
}

func TestVerifying(t *testing.T) {
	path, books := verifying(t, verify.Options{ReceivedSPF: true})
	c := openVerifying(t, path)
	for range 2 { // two messages of one session
		r := c.Send(wiretest.Mail{From: "<a@example.org>", To: []string{"<b@example.com>"}, Message: forgedMessage})
		wantReply(t, "a mail", r, "accept")
		var got []string
		for _, change := range r.Changes {
			got = append(got, change.String())
		}
		want(t, "changes", got, []string{
			"m 3 Authentication-Results:",
			"m 1 Authentication-Results:",
			"i 0 Received-SPF: pass (mta.example: domain of a@example.org designates 192.0.2.1\n\tas permitted sender) receiver=mta.example; identity=mailfrom;\n\tclient-ip=192.0.2.1; envelope-from=\"a@example.org\"; helo=helo.example;\n\tmechanism=\"ip4:192.0.2.1\";",
			"i 0 Authentication-Results: mta.example;\n\tspf=pass (ip4:192.0.2.1) smtp.mailfrom=example.org;\n\tdkim=none;\n\tiprev=pass (client.example) policy.iprev=192.0.2.1;\n\tdmarc=none header.from=example.org",
		})
		rec := books.next()
		if rec.Verdict != "pass" || rec.Reason != record.Verified || rec.SPF != "pass" || rec.DKIM != "none" || rec.From != "example.org" || rec.MessageID != "<1@example.org>" || rec.DMARC != "none" || rec.ARC != "none" || rec.Disposition != "none" || len(rec.Steps) != 4 {
			t.Errorf("record %+v", rec)
		}
	}
	c.Quit()
	books.none(t)
}

// Mail of a client that has logged in is ours: it is signed, never verified.
func TestVerifyingLeavesOurOwn(t *testing.T) {
	path, books := verifyingBoth(t)
	c := openVerifying(t, path)
	r := c.Send(wiretest.Mail{From: "<a@example.org>", To: []string{"<b@example.com>"}, Message: forgedMessage, Macros: []string{"{auth_authen}", "a", "{auth_type}", "PLAIN"}})
	wantReply(t, "our own mail", r, "accept")
	if len(r.Changes) != 0 {
		t.Errorf("changes %v", r.Changes)
	}
	if rec := books.next(); rec.Check != "sign" {
		t.Errorf("record %+v", rec)
	}
}

// verifyingBoth verifies, and signs nothing.
func verifyingBoth(t *testing.T) (string, *ledger) {
	t.Helper()
	v := verify.New(verify.Options{Resolver: resolvertest.NewZone(t, verifyZone)})
	return start(t, nil, milter.BySession, func(s *milter.Settings) { s.Sign, s.Verify = nil, milter.NewVerifying(v) })
}

func TestVerifyingRefuses(t *testing.T) {
	path, books := verifying(t, verify.Options{SPFReject: true})
	c := openVerifying(t, path)
	c.Mail("<a@fail.example>")
	for range 2 {
		const refused = "550 5.7.23 SPF: 192.0.2.1 may not send mail of fail.example (-all)"
		wantReply(t, "a recipient", c.Rcpt("<b@example.com>"), refused)
		if rec := books.next(); rec.Reason != record.SPFFailed || rec.Verdict != "reject" || rec.SPF != "fail" || rec.Recipient != "b@example.com" {
			t.Errorf("record %+v", rec)
		}
	}
	c.Abort()
	wantReply(t, "the next mail", c.Send(wiretest.Mail{From: "<a@example.org>", To: []string{"<b@example.com>"}, Message: forgedMessage}), "accept")
	books.next()
}

// A refusal that DNS gives only after the recipients is the reply to the whole
// message.
func TestVerifyingRefusesAtTheEnd(t *testing.T) {
	path, books := verifying(t, verify.Options{SPFReject: true})
	c := openVerifying(t, path)
	r := c.Send(wiretest.Mail{From: "<a@fail.example>", Message: forgedMessage}) // no recipient is told
	if !strings.HasPrefix(r.String(), "550 5.7.23 SPF: ") || len(r.Changes) != 0 {
		t.Errorf("reply %s, changes %v", r, r.Changes)
	}
	if rec := books.next(); rec.Reason != record.SPFFailed || rec.Verdict != "reject" || rec.From != "example.org" {
		t.Errorf("record %+v", rec)
	}
}

func TestVerifyingUnsure(t *testing.T) {
	path, books := verifying(t, verify.Options{SPFReject: true})
	c := openVerifying(t, path)
	r := c.Send(wiretest.Mail{From: "<a@down.example>", To: []string{"<b@example.com>"}, Message: forgedMessage})
	wantReply(t, "a mail", r, "accept")
	if rec := books.next(); rec.Reason != record.VerifyUnsure || rec.Verdict != "pass" || rec.SPF != "temperror" {
		t.Errorf("record %+v", rec)
	}
}

// nilDNS panics at the first question.
type nilDNS struct{ verify.Resolver }

// After a defect of ours the configured rule is applied. Forged results are removed
// in any case.
func TestVerifyingDefect(t *testing.T) {
	for _, test := range []struct {
		deferred bool
		reply    string
		changes  int
	}{{false, "accept", 3}, {true, "451 4.3.0 Temporary failure, try again later", 0}} {
		handler := milter.NewVerifying(verify.New(verify.Options{Resolver: nilDNS{}}))
		path, books := start(t, handler, milter.VerifyOnly, func(s *milter.Settings) { s.DeferOnError = test.deferred })
		r := openVerifying(t, path).Send(wiretest.Mail{From: "<a@example.org>", To: []string{"<b@example.com>"}, Message: forgedMessage})
		wantReply(t, "a mail", r, test.reply)
		if len(r.Changes) != test.changes {
			t.Errorf("changes %v", r.Changes)
		}
		if test.changes > 0 && r.Changes[2].Value != " mta.example; none" {
			t.Errorf("field %v", r.Changes[2])
		}
		if rec := books.next(); rec.Reason != record.CheckFailed || rec.Err == nil || !strings.Contains(rec.Err.Error(), "panic") {
			t.Errorf("record %+v", rec)
		}
	}
}

// A message may end at any stage.
func TestVerifyingAborted(t *testing.T) {
	path, books := verifying(t, verify.Options{})
	for stage := range 4 {
		c := openVerifying(t, path)
		c.Mail("<a@example.org>")
		if stage > 0 {
			c.Header("From", " a@example.org")
			c.EndOfHeader()
		}
		if stage > 1 {
			c.Body("half a bo")
		}
		if stage > 2 {
			c.Abort()
		}
		c.Quit()
	}
	books.none(t)
}
