package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// newSpoofedSite is a site in a DNS that has the attacker and the legitimate one.
// Its Postfix takes no one for a client of its own, to whose mail it would add a
// missing From.
func newSpoofedSite(t *testing.T) *Site {
	s := newSigningSite(t, SiteConfig{Postfix: func(c *postfixtest.Config) {
		c.Main = append(c.Main, "local_header_rewrite_clients =")
	}})
	if err := s.DNS.Add(spoofZone()); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestEspoofer has strangers pretend to be a domain that asks for p=reject, in
// every known way: by default such mail is delivered with our mark.
func TestEspoofer(t *testing.T) {
	t.Parallel()
	s := newSpoofedSite(t)
	checkShapes(t)
	for _, c := range spoofs() {
		t.Run(c.name, func(t *testing.T) {
			m := c.mail()
			if got := send(t, s, postfixtest.MX, m); got.Code != 250 {
				t.Fatal(got)
			}
			checkSpoofed(t, s, m, c)
		})
	}
	t.Run("hostile", func(t *testing.T) { checkHostileMail(t, s) })
	if err := s.milterdWith(t.Context(), []string{"--dmarc-enforce=strict"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range spoofs() {
		t.Run("strict "+c.name, func(t *testing.T) { checkStrict(t, s, c) })
	}
}

// checkShapes wants every number of espoofer's in the table, and a reason for each.
func checkShapes(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range spoofs() {
		number, _, _ := strings.Cut(c.name, " ")
		seen[number] = true
		if c.why == "" || len(c.results) == 0 {
			t.Errorf("%s: no reason or no results", c.name)
		}
	}
	for _, number := range strings.Fields("a1 a2 a3 a4 a5 a6 a7 a8 a9 a10 a11 a12 a13 a14 a15 a16 a17 a18 a19") {
		if !seen[number] {
			t.Errorf("no shape %s", number)
		}
	}
}

// falsePass matches a result of ours that passes something of the legitimate
// domain, for a reader who cuts at semicolons and knows nothing of quotes.
var falsePass = regexp.MustCompile(`(spf|dkim|dmarc|arc)=pass[^;]*` + regexp.QuoteMeta(legit))

// quoted matches a quoted display name.
var quoted = regexp.MustCompile(`"[^"]*"`)

// checkSpoofed looks at what was delivered.
func checkSpoofed(t *testing.T, s *Site, m postfixtest.Mail, c spoof) {
	t.Helper()
	d, err := s.Postfix.Delivered(t.Context(), m.To[0])
	if err != nil {
		t.Fatal(err)
	}
	ours, err := ourResults(d, c.results)
	if err != nil {
		t.Error(err)
	}
	if wrong := falsePass.FindString(ours); wrong != "" {
		t.Errorf("%q in %q", wrong, ours)
	}
	var want []string
	if !c.passes {
		want = []string{"dmarc"}
	}
	if marks := d.Headers(quarantineField); !slices.Equal(marks, want) {
		t.Errorf("marks %q, want %q (%s) in\n%s", marks, want, c.why, d.Data)
	}
	from := d.Headers("From")
	if c.noAuthor && len(from) > 0 {
		t.Errorf("delivered with From %q", from)
	}
	if c.passes && strings.Contains(quoted.ReplaceAllString(strings.Join(from, " "), ""), legit) {
		t.Errorf("not marked with From %q", from)
	}
}

// checkStrict wants the same refused, but for mail that names no domain at all.
func checkStrict(t *testing.T, s *Site, c spoof) {
	m := c.mail()
	got := send(t, s, postfixtest.MX, m)
	if c.passes || c.noAuthor {
		if got.Code != 250 {
			t.Fatal(got)
		}
		checkSpoofed(t, s, m, c)
		return
	}
	if want := "550 5.7.1 Email rejected per DMARC policy for " + legit; got.String() != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestEspooferUsers has a user of ours pretend to be somebody else: no signature
// of ours may cover the name of another domain.
func TestEspooferUsers(t *testing.T) {
	t.Parallel()
	s := newSpoofedSite(t)
	for _, c := range userSpoofs() {
		t.Run(c.name, func(t *testing.T) {
			m := c.mail()
			if c.reason == "" {
				expect(t, s, postfixtest.Submission, m, c.code)
				return
			}
			o := runSigned(t, s, SignCase{Name: c.name, Service: postfixtest.Submission, Mail: m, Reason: c.reason, Good: c.signatures})
			if signed := o.Record.SignedBy != ""; signed != (c.reason == record.Signed) {
				t.Errorf("record %s", o.Record.Raw)
			}
			if forged := o.Delivered.Headers("Authentication-Results"); len(forged) != 1 || !strings.Contains(forged[0], "mx.other.example") {
				t.Errorf("results in our name of mail that a user wrote: %q", forged)
			}
			fields := o.Delivered.Headers("DKIM-Signature")
			from := strings.Join(o.Delivered.Headers("From"), "\n")
			if len(fields) > 0 && strings.Contains(from, legit) {
				t.Errorf("signed: From %s", from)
			}
			for _, f := range fields {
				if !strings.Contains(f, "d="+homeDomain+";") {
					t.Errorf("signature %s", f)
				}
			}
		})
	}
}

// checkHostileMail has what the parsers of the daemon must accept come through Postfix,
// which changes some of it. Whatever the author is in what is delivered, no one
// reads the legitimate domain there in a mail without our mark.
func checkHostileMail(t *testing.T, s *Site) {
	if err := s.DNS.Add(hostileZone()); err != nil {
		t.Fatal(err)
	}
	s.DNS.Fail("_dmarc.circle.example", resolvertest.CNAMELoop)
	s.DNS.Fail("*.dead.example", resolvertest.Silence)
	for _, c := range hostileMails() {
		t.Run(c.name, func(t *testing.T) {
			m := c.mail()
			if got := send(t, s, postfixtest.MX, m); got.Code != 250 {
				t.Fatal(got)
			}
			checkSpoofed(t, s, m, c)
		})
	}
}
