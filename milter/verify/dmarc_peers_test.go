package verify

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// These tests compare our verdicts of DMARC with those of OpenDKIM with OpenDMARC,
// and of rspamd, in the versions of Debian: for the same mail, client and DNS. Where
// they differ, the table has the difference and the section by which ours is right.
// The tests also fail when a difference is gone.

// peerCase is one zone, message and envelope. In all texts, $D is a domain that
// no other case has. A zero field has a default.
type peerCase struct {
	name   string
	policy string   // the record of $D
	zone   string   // more of the DNS
	down   []string // names for which DNS lookups fail
	client string   // 192.0.2.9; the zone lets 192.0.2.1 send for $D and below
	helo   string   // mx.away.example
	sender string   // x@away.example
	from   string   // the From field, "From: <a@$D>"
	signer string   // d= of a signature; its key is in the zone
	after  string   // is put behind a signed body

	want              string
	opendmarc, rspamd other // zero when they say the same
}

// other is what a peer says instead, and why we do not.
type other struct{ says, why string }

// The words of verdicts: those below, and "fail" with the policy that applies.
const (
	peerPass, peerNone, peerPermError, peerTempError = "pass", "none", "permerror", "temperror"
	peerReject, peerQuarantine, peerFailNone         = "fail reject", "fail quarantine", "fail none"
	// silent is a mail without a verdict.
	silent = "silent"
)

const (
	ownClient     = "192.0.2.1"
	foreignClient = "192.0.2.9"
)

// Why peers differ. Sections are those of RFC 9989, where it says nothing else.
const (
	notStrict = "takes a name below the author's for aligned in strict mode too (sections 4.4.1, 4.4.2: identical)"
	noNP      = "does not know np (section 4.7)"
	noWalk    = "looks at the author's domain, and that below the Public Suffix List's entry: no tree walk (section 4.10)"
	noPSD     = "takes organizations from the Public Suffix List and does not know psd (section 4.10.2)"
	samples   = "draws lots for pct, which is gone (section 4.7, Appendix A.6)"
	noTest    = "does not know t (section 4.7)"
	dropAll   = " (section 4.10: several at a name are dropped, and the walk goes on)"
	wsp       = "does not read white space around = (section 4.8)"
	lastTag   = "takes the last of two tags (section 4.7: the syntax of RFC 6376, whose section 3.2 forbids two)"
	noDefault = "gives up the record for one bad tag (section 4.7: bad syntax is ignored, the default counts)"
	rua       = "gives up the record (section 4.10.1: with a rua, as p=none)"
	bad       = " (section 4.10.1: the record is there, and no policy can be had of it)"
	down      = "takes a failed DNS lookup for an answer (section 5.3.6: neither pass nor fail)"
	several   = "judges no From with several domains (section 5.3.1 allows that; section 11.5: a way around DMARC)"
	unjudged  = "has no word for a From that cannot be judged (section 11.5: a way around DMARC)"
	says      = "says nothing (section 5.3.1 ends there; RFC 8601 has \"none\" for it)"
)

func peerCases() []peerCase {
	return []peerCase{
		// What passes, and what does not.
		{name: "SPF passes", policy: "v=DMARC1; p=reject", client: ownClient, sender: "x@$D", want: peerPass},
		{name: "DKIM passes", policy: "v=DMARC1; p=reject", signer: "$D", want: peerPass},
		{name: "both pass for others", policy: "v=DMARC1; p=reject", signer: "away.example", want: peerReject},
		{name: "SPF fails, reject", policy: "v=DMARC1; p=reject", sender: "x@$D", want: peerReject},
		{name: "SPF fails, quarantine", policy: "v=DMARC1; p=quarantine", sender: "x@$D", want: peerQuarantine},
		{name: "SPF fails, none", policy: "v=DMARC1; p=none", sender: "x@$D", want: peerFailNone},
		{name: "SPF softfails", policy: "v=DMARC1; p=reject", zone: "soft.$D. TXT \"v=spf1 ~all\"", sender: "x@soft.$D", want: peerReject},
		{name: "SPF is broken", policy: "v=DMARC1; p=reject", zone: "bad.$D. TXT \"v=spf1 nonsense -all\"", sender: "x@bad.$D", want: peerReject},
		{name: "a signature that fails", policy: "v=DMARC1; p=reject", signer: "$D", after: "More.\r\n", want: peerReject},
		{name: "a signature that fails beside SPF", policy: "v=DMARC1; p=reject", client: ownClient, sender: "x@$D", signer: "$D", after: "More.\r\n", want: peerPass},
		{name: "null sender", policy: "v=DMARC1; p=reject", client: ownClient, helo: "mail.$D", sender: "<>", want: peerPass},
		{name: "null sender of somebody else", policy: "v=DMARC1; p=reject", sender: "<>", want: peerReject},
		{name: "HELO passes, MAIL FROM is somebody else's", policy: "v=DMARC1; p=reject", client: ownClient, helo: "mail.$D", sender: "x@nothing.example", want: peerReject},

		// Alignment.
		{name: "SPF for a subdomain", policy: "v=DMARC1; p=reject", client: ownClient, sender: "x@mail.$D", want: peerPass},
		{name: "SPF for a subdomain, strict", policy: "v=DMARC1; p=reject; aspf=s", client: ownClient, sender: "x@mail.$D", want: peerReject, opendmarc: other{peerPass, notStrict}},
		{name: "SPF for the parent", policy: "v=DMARC1; p=reject", client: ownClient, sender: "x@$D", from: "From: <a@news.$D>", want: peerPass},
		{name: "SPF, strict and equal", policy: "v=DMARC1; p=reject; aspf=s; adkim=s", client: ownClient, sender: "x@$D", want: peerPass},
		{name: "DKIM for a subdomain", policy: "v=DMARC1; p=reject", signer: "mail.$D", want: peerPass},
		{name: "DKIM for a subdomain, strict", policy: "v=DMARC1; p=reject; adkim=s", signer: "mail.$D", want: peerReject, opendmarc: other{peerPass, notStrict}},
		{name: "SPF for the parent, strict", policy: "v=DMARC1; p=reject; aspf=s", client: ownClient, sender: "x@$D", from: "From: <a@mail.$D>", want: peerReject},
		{name: "DKIM for the parent", policy: "v=DMARC1; p=reject", signer: "$D", from: "From: <a@news.$D>", want: peerPass},
		{name: "strict for one, relaxed for the other", policy: "v=DMARC1; p=reject; aspf=s", signer: "mail.$D", want: peerPass},
		{name: "capitals", policy: "v=DMARC1; p=reject", client: ownClient, sender: "x@$D", from: "From: <A@MAIL.$D>", want: peerPass},

		// Which policy.
		{name: "sp", policy: "v=DMARC1; p=reject; sp=quarantine", from: "From: <a@mail.$D>", want: peerQuarantine},
		{name: "sp is not for the domain itself", policy: "v=DMARC1; p=reject; sp=none", want: peerReject},
		{name: "no sp", policy: "v=DMARC1; p=quarantine", from: "From: <a@mail.$D>", want: peerQuarantine},
		{name: "np", policy: "v=DMARC1; p=none; sp=none; np=reject", from: "From: <a@nobody.$D>", want: peerReject, opendmarc: other{peerFailNone, noNP}, rspamd: other{peerFailNone, noNP}},
		{name: "np, but the name exists", policy: "v=DMARC1; p=quarantine; sp=none; np=reject", from: "From: <a@mail.$D>", want: peerFailNone},
		{name: "a subdomain's own record", policy: "v=DMARC1; p=reject; sp=reject", zone: "_dmarc.mail.$D. TXT \"v=DMARC1; p=none\"", from: "From: <a@mail.$D>", want: peerFailNone},
		{name: "a record in the middle", policy: "v=DMARC1; p=none", zone: "_dmarc.dept.$D. TXT \"v=DMARC1; p=reject; psd=n\"", from: "From: <a@host.dept.$D>", want: peerReject, opendmarc: other{peerFailNone, noWalk}, rspamd: other{peerFailNone, noWalk}},
		{name: "a record in the middle alone", zone: "_dmarc.dept.$D. TXT \"v=DMARC1; p=reject\"", from: "From: <a@host.dept.$D>", want: peerReject, opendmarc: other{peerNone, noWalk}, rspamd: other{peerNone, noWalk}},
		{name: "an organization of its own", policy: "v=DMARC1; p=reject", zone: "_dmarc.dept.$D. TXT \"v=DMARC1; p=reject; psd=n\"", client: ownClient, sender: "x@$D", from: "From: <a@dept.$D>", want: peerReject, opendmarc: other{peerPass, noPSD}, rspamd: other{peerPass, noPSD}},
		{name: "a public suffix by its record", policy: "v=DMARC1; p=reject; psd=y", zone: "one.$D. TXT \"v=spf1 ip4:192.0.2.1 -all\"", client: ownClient, sender: "x@one.$D", from: "From: <a@two.$D>", want: peerReject, opendmarc: other{peerPass, noPSD}, rspamd: other{peerPass, noPSD}},
		{name: "a public suffix of the list alone", zone: "_dmarc.pub.example. TXT \"v=DMARC1; p=reject\"", from: "From: <a@two.pub.example>", want: peerReject, opendmarc: other{peerNone, noWalk}, rspamd: other{peerNone, noWalk}},
		{name: "eight labels and more", policy: "v=DMARC1; p=reject", from: "From: <a@a.b.c.d.e.f.g.h.$D>", want: peerReject},

		// How much of it.
		{name: "pct=0, reject", policy: "v=DMARC1; p=reject; pct=0", want: peerReject, opendmarc: other{peerFailNone, samples}, rspamd: other{peerQuarantine, samples}},
		{name: "pct=0, quarantine", policy: "v=DMARC1; p=quarantine; pct=0", want: peerQuarantine, opendmarc: other{peerFailNone, samples}, rspamd: other{peerFailNone, samples}},
		{name: "pct=100", policy: "v=DMARC1; p=reject; pct=100", want: peerReject},
		{name: "t=y, reject", policy: "v=DMARC1; p=reject; t=y", want: peerQuarantine, opendmarc: other{peerReject, noTest}, rspamd: other{peerReject, noTest}},
		{name: "t=y, quarantine", policy: "v=DMARC1; p=quarantine; t=y", want: peerFailNone, opendmarc: other{peerQuarantine, noTest}, rspamd: other{peerQuarantine, noTest}},
		{name: "t=y passes", policy: "v=DMARC1; p=reject; t=y", signer: "$D", want: peerPass},

		// Records.
		{name: "no record", want: peerNone},
		{name: "two records", policy: "v=DMARC1; p=reject", zone: "_dmarc.$D. TXT \"v=DMARC1; p=none\"", want: peerNone, opendmarc: other{peerReject, "takes the first of several records" + dropAll}, rspamd: other{peerPermError, "calls several records an error" + dropAll}},
		{name: "two records, one above", policy: "v=DMARC1; p=reject", zone: "_dmarc.mail.$D. TXT \"v=DMARC1; p=none\"\n_dmarc.mail.$D. TXT \"v=DMARC1; p=quarantine\"", from: "From: <a@mail.$D>", want: peerReject, opendmarc: other{peerFailNone, "takes the first of several records" + dropAll}, rspamd: other{peerPermError, "calls several records an error" + dropAll}},
		{name: "a record beside other text", policy: "v=DMARC1; p=reject", zone: "_dmarc.$D. TXT \"some text\"", want: peerReject},
		{name: "other text alone", policy: "some text", want: peerNone},
		{name: "v is not first", policy: "p=reject; v=DMARC1", want: peerNone, opendmarc: other{peerReject, "takes v= anywhere (section 4.7: first)"}},
		{name: "v in small letters", policy: "v=dmarc1; p=reject", want: peerNone},
		{name: "spaces around v", policy: "v = DMARC1 ; p = reject", want: peerReject, opendmarc: other{peerNone, wsp}, rspamd: other{peerFailNone, wsp}},
		{name: "no spaces", policy: "v=DMARC1;p=reject;adkim=s;", want: peerReject},
		{name: "capitals in values", policy: "v=DMARC1; p=Reject", want: peerReject},
		{name: "capitals in tags", policy: "v=DMARC1; P=reject", want: peerReject},
		{name: "in two strings", zone: "_dmarc.$D. TXT \"v=DMARC1; p=rej\" \"ect\"", want: peerReject},
		{name: "an alias", zone: "_dmarc.$D. CNAME policy.$D.\npolicy.$D. TXT \"v=DMARC1; p=reject\"", want: peerReject},
		{name: "unknown tags", policy: "v=DMARC1; future=1; p=reject; x=y", want: peerReject},
		{name: "a tag without a value", policy: "v=DMARC1; p=reject; rua=", want: peerReject},
		{name: "p twice", policy: "v=DMARC1; p=reject; p=none", want: peerPermError, opendmarc: other{peerFailNone, lastTag}, rspamd: other{peerFailNone, lastTag}},
		{name: "p is not second", policy: "v=DMARC1; adkim=r; p=reject", want: peerReject},
		{name: "adkim is broken", policy: "v=DMARC1; p=reject; adkim=x", want: peerReject, opendmarc: other{peerPermError, noDefault}, rspamd: other{peerPermError, noDefault}},
		{name: "p is broken, rua", policy: "v=DMARC1; p=eject; rua=mailto:r@$D", want: peerFailNone, opendmarc: other{peerPermError, rua}, rspamd: other{peerPermError, rua}},
		{name: "p is broken, no rua", policy: "v=DMARC1; p=eject", want: peerPermError},
		{name: "p is missing, rua", policy: "v=DMARC1; rua=mailto:r@$D", want: peerFailNone, opendmarc: other{peerPermError, rua}},
		{name: "p is missing, no rua", policy: "v=DMARC1", want: peerPermError, rspamd: other{peerNone, "says that there is no policy" + bad}},
		{name: "sp is broken, rua", policy: "v=DMARC1; p=reject; sp=eject; rua=mailto:r@$D", want: peerFailNone, opendmarc: other{peerPermError, rua}, rspamd: other{peerReject, "does not look at sp here" + bad}},

		// Failed DNS lookups.
		{name: "the policy is down", policy: "v=DMARC1; p=reject", down: []string{"_dmarc.$D"}, want: peerTempError, opendmarc: other{peerNone, down}},
		{name: "the policy is down, aligned", policy: "v=DMARC1; p=reject", down: []string{"_dmarc.$D"}, signer: "$D", want: peerTempError, opendmarc: other{peerNone, down}},
		{name: "the parent's policy is down", policy: "v=DMARC1; p=reject", down: []string{"_dmarc.$D"}, from: "From: <a@mail.$D>", want: peerTempError, opendmarc: other{peerNone, down}},
		{name: "SPF is down", policy: "v=DMARC1; p=reject", down: []string{"mail.$D"}, sender: "x@mail.$D", want: peerTempError, opendmarc: other{peerReject, down}},
		{name: "SPF is down, DKIM passes", policy: "v=DMARC1; p=reject", down: []string{"mail.$D"}, sender: "x@mail.$D", signer: "$D", want: peerPass},
		{name: "SPF of somebody else is down", policy: "v=DMARC1; p=reject", zone: "down$D. TXT \"v=spf1 -all\"", down: []string{"down$D"}, sender: "x@down$D", want: peerReject},
		{name: "the key is down", policy: "v=DMARC1; p=reject", down: []string{"s._domainkey.$D"}, signer: "$D", want: peerTempError, opendmarc: other{peerReject, down}},
		{name: "the key is down, SPF passes", policy: "v=DMARC1; p=reject", down: []string{"s._domainkey.$D"}, signer: "$D", client: ownClient, sender: "x@$D", want: peerPass},

		// Who is the author.
		{name: "an address alone", policy: "v=DMARC1; p=reject", from: "From: a@$D", want: peerReject},
		{name: "a name that looks like an address", policy: "v=DMARC1; p=reject", from: "From: \"b@away.example\" <a@$D>", want: peerReject},
		{name: "a comment with an address", policy: "v=DMARC1; p=reject", from: "From: (b@away.example) a@$D (c@away.example)", want: peerReject},
		{name: "an encoded word", policy: "v=DMARC1; p=reject", from: "From: =?utf-8?Q?=3Cb=40away.example=3E?= <a@$D>", want: peerReject},
		{name: "folded", policy: "v=DMARC1; p=reject", from: "From: A\n <a@$D>", want: peerReject},
		{name: "a space before the bracket", policy: "v=DMARC1; p=reject", from: "From: <a@$D >", want: peerReject},
		{name: "a quoted at", policy: "v=DMARC1; p=reject", from: "From: <\"a@away.example\"@$D>", want: peerReject},
		{name: "a route", policy: "v=DMARC1; p=reject", from: "From: <@away.example:a@$D>", want: peerReject},
		{name: "a last dot", policy: "v=DMARC1; p=reject", from: "From: <a@$D.>", want: peerReject},
		{name: "a group", policy: "v=DMARC1; p=reject", from: "From: Friends: <a@$D>;", want: peerReject},
		{name: "a group of nobody", from: "From: Friends:;", want: peerNone, opendmarc: other{silent, says}},
		{name: "letters beyond ASCII", zone: "_dmarc.xn--bcher-kva.$D. TXT \"v=DMARC1; p=reject\"", from: "From: <a@bücher.$D>", want: peerReject, opendmarc: other{peerNone, "asks DNS for U-labels (section 5.3.1: A-labels)"}},
		{name: "two authors of one domain", policy: "v=DMARC1; p=reject", from: "From: <a@$D>, <b@$D>", want: peerReject, rspamd: other{peerNone, "judges no From with several addresses (section 5.3.1 counts domains)"}},
		{name: "two authors", policy: "v=DMARC1; p=reject", from: "From: <b@away.example>, <a@$D>", want: peerReject, opendmarc: other{silent, several}, rspamd: other{peerNone, several}},
		{name: "two fields", policy: "v=DMARC1; p=reject", from: "From: <b@away.example>\nFrom: <a@$D>", want: peerReject, opendmarc: other{peerNone, "judges the first field alone (section 11.5)"}, rspamd: other{peerNone, several}},
		{name: "two fields, the other order", policy: "v=DMARC1; p=reject", from: "From: <a@$D>\nFrom: <b@away.example>", want: peerReject, rspamd: other{peerNone, several}},
		{name: "a space before the colon", policy: "v=DMARC1; p=reject", from: "From : <a@$D>", want: peerReject, rspamd: other{peerNone, "does not read the obsolete form of a field (RFC 5322 section 4.5.8)"}},
		{name: "no From", from: "Sender: <a@$D>", want: peerPermError, opendmarc: other{silent, unjudged}, rspamd: other{peerNone, unjudged}},
		{name: "an empty From", from: "From:", want: peerPermError, opendmarc: other{silent, unjudged}, rspamd: other{peerNone, unjudged}},
		{name: "no domain", from: "From: <a>", want: peerNone, opendmarc: other{silent, says}},
		{name: "a domain that is none", from: "From: <a@b..c>", want: peerPermError, opendmarc: other{peerNone, unjudged}, rspamd: other{silent, unjudged}},
	}
}

// domain is $D of the i-th case.
func (c *peerCase) domain(i int) string { return fmt.Sprintf("c%d.example", i) }

func (c *peerCase) fill(i int, text, fallback string) string {
	if text == "" {
		text = fallback
	}
	return strings.ReplaceAll(text, "$D", c.domain(i))
}

// peerWorld is the DNS of all cases, with one key for all signers.
func peerWorld(t *testing.T, cases []peerCase, key *rsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
	record := fmt.Sprintf(`TXT "%s" "%s"`, text[:200], text[200:])
	var b strings.Builder
	b.WriteString("away.example. TXT \"v=spf1 ip4:" + foreignClient + " -all\"\nmx.away.example. A " + foreignClient + "\n")
	b.WriteString("s._domainkey.away.example. " + record + "\n")
	for i, c := range cases {
		zone := "$D. TXT \"v=spf1 ip4:" + ownClient + " -all\"\ns._domainkey.$D. " + record + "\nmail.$D. TXT \"v=spf1 ip4:" + ownClient + " -all\"\ns._domainkey.mail.$D. " + record + "\n"
		if c.policy != "" {
			zone += "_dmarc.$D. TXT \"" + c.policy + "\"\n"
		}
		b.WriteString(c.fill(i, zone+c.zone, "") + "\n")
	}
	return b.String()
}

// message is the mail of a case, with CRLF.
func (c *peerCase) message(t *testing.T, i int, key *rsa.PrivateKey) string {
	t.Helper()
	from := strings.ReplaceAll(c.fill(i, c.from, "From: <a@$D>"), "\n", "\r\n")
	mail := from + "\r\nTo: <b@home.example>\r\nSubject: a mail\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@away.example>\r\n\r\nHello.\r\n"
	if c.signer == "" {
		return mail
	}
	var out bytes.Buffer
	options := &msgauth.SignOptions{Domain: c.fill(i, c.signer, ""), Selector: "s", Signer: key, HeaderKeys: []string{"From", "To", "Subject", "Date"}}
	if err := msgauth.Sign(&out, strings.NewReader(mail), options); err != nil {
		t.Fatal(err)
	}
	return out.String() + c.after
}

// peerMail is a case as it is sent to everybody.
type peerMail struct {
	client, helo, sender, message string
}

func (c *peerCase) mail(t *testing.T, i int, key *rsa.PrivateKey) peerMail {
	m := peerMail{
		client:  c.fill(i, c.client, foreignClient),
		helo:    c.fill(i, c.helo, "mx.away.example"),
		sender:  c.fill(i, c.sender, "x@away.example"),
		message: c.message(t, i, key),
	}
	if m.sender == "<>" {
		m.sender = ""
	}
	return m
}

// ours is the verdict of a Verifier.
func (m peerMail) ours(t *testing.T, r Resolver) string {
	t.Helper()
	fields, body := readMessage(t, m.message)
	v := New(Options{Resolver: r}).Start(t.Context(), Envelope{
		Client: netip.MustParseAddr(m.client), Helo: m.helo, Sender: mailaddr.Parse(m.sender), MTA: "mail.home.example",
	})
	defer v.Close()
	v.Header(fields)
	v.Write(body)
	verdict := v.Finish(t.Context()).Findings.DMARC.Verdict
	if verdict.Status == dmarc.Fail {
		return "fail " + string(verdict.Policy)
	}
	return string(verdict.Status)
}

// opendmarc is the verdict of OpenDMARC. As with Postfix, it sees the fields that
// OpenDKIM has added before.
func (m peerMail) opendmarc(t *testing.T, opendkim, opendmarc *postfixtest.Peer) string {
	t.Helper()
	first := m.filtered(t, opendkim)
	for _, field := range first.Fields {
		m.message = strings.ReplaceAll(field, "\n", "\r\n") + "\r\n" + m.message
	}
	v := m.filtered(t, opendmarc)
	switch {
	case v.Quarantine != "":
		return peerQuarantine
	case strings.HasPrefix(v.Reply, "550"):
		return peerReject
	case v.Code == 't' || strings.HasPrefix(v.Reply, "4"):
		return peerTempError
	}
	for _, field := range v.Fields {
		if _, rest, ok := strings.Cut(field, "; dmarc="); ok {
			status, _, _ := strings.Cut(rest, " ")
			if status == "fail" {
				return peerFailNone
			}
			return status
		}
	}
	return silent
}

func (m peerMail) filtered(t *testing.T, p *postfixtest.Peer) postfixtest.MilterVerdict {
	t.Helper()
	c, err := postfixtest.DialMilter(t.Context(), p.Socket, postfixtest.MilterSession{Client: m.client, Name: m.helo, Helo: m.helo, MTA: "mail.home.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v, err := c.Send(postfixtest.MilterMail{Sender: m.sender, Recipient: "b@home.example", Message: m.message})
	if err != nil {
		t.Fatalf("%s: %v", p.Socket, err)
	}
	return v
}

// rspamdSymbols are its words.
func rspamdSymbols() map[string]string {
	return map[string]string{
		"DMARC_POLICY_ALLOW": peerPass, "DMARC_POLICY_REJECT": peerReject, "DMARC_POLICY_QUARANTINE": peerQuarantine, "DMARC_POLICY_SOFTFAIL": peerFailNone,
		"DMARC_NA": peerNone, "DMARC_BAD_POLICY": peerPermError, "DMARC_DNSFAIL": peerTempError,
	}
}

// rspamd is the verdict of rspamd.
func (m peerMail) rspamd(t *testing.T, p *postfixtest.Peer) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.Socket)
	}}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://rspamd/checkv2", strings.NewReader(m.message))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"IP": m.client, "Helo": m.helo, "From": m.sender, "Rcpt": "b@home.example", "MTA-Name": "mail.home.example"} {
		request.Header.Set(name, value)
	}
	reply, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	var answer struct {
		Symbols map[string]struct{ Options []string }
	}
	if err := json.NewDecoder(reply.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	var said []string
	for symbol, word := range rspamdSymbols() {
		if _, ok := answer.Symbols[symbol]; ok {
			said = append(said, word)
		}
	}
	if len(said) == 0 {
		return silent
	}
	slices.Sort(said)
	return strings.Join(said, " and ")
}

func TestPeersOnDMARC(t *testing.T) {
	if testing.Short() {
		t.Skip("compares with other programs, and the tests run without (-short)")
	}
	if err := postfixtest.Peers("opendkim", "opendmarc", "rspamd"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cases := peerCases()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	at := postfixtest.NameserverAddr()
	dns, err := resolvertest.StartAt(at.String(), peerWorld(t, cases, key))
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	opendkim, opendmarc, rspamd := startPeers(t, at.Addr())
	resolver := dns.Resolver(t)
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range c.down {
				dns.Fail(c.fill(i, name, ""), resolvertest.ServFail)
			}
			m := c.mail(t, i, key)
			if got := m.ours(t, resolver); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			c.opendmarc.compare(t, "OpenDMARC", c.want, m.opendmarc(t, opendkim, opendmarc))
			c.rspamd.compare(t, "rspamd", c.want, m.rspamd(t, rspamd))
		})
	}
}

// compare compares the verdict of a peer with the known difference.
func (o other) compare(t *testing.T, who, ours, theirs string) {
	t.Helper()
	switch {
	case o.says == "" && theirs != ours:
		t.Errorf("%s says %s, and nobody knows why; we say %s", who, theirs, ours)
	case o.says != "" && theirs != o.says:
		t.Errorf("%s says %s, known for %s: it %s; we say %s", who, theirs, o.says, o.why, ours)
	}
}

// Every difference is one, and rests on a section.
func TestPeerCases(t *testing.T) {
	const least = 40
	cases := peerCases()
	if len(cases) < least {
		t.Errorf("%d cases, want at least %d", len(cases), least)
	}
	seen := map[string]bool{}
	for _, c := range cases {
		if seen[c.name] {
			t.Errorf("%s: twice", c.name)
		}
		seen[c.name], seen[c.want] = true, true
		for _, o := range []other{c.opendmarc, c.rspamd} {
			if o.says == c.want || (o.says == "") != (o.why == "") || o.why != "" && !strings.Contains(o.why, "section") {
				t.Errorf("%s: %+v", c.name, o)
			}
		}
	}
	for _, want := range []string{peerPass, peerNone, peerPermError, peerTempError, peerReject, peerQuarantine, peerFailNone} {
		if !seen[want] {
			t.Errorf("no case has %s", want)
		}
	}
}

func startPeers(t *testing.T, nameserver netip.Addr) (opendkim, opendmarc, rspamd *postfixtest.Peer) {
	t.Helper()
	dir, err := postfixtest.MakeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := postfixtest.PeerConfig{Dir: dir, Nameserver: nameserver, Enforce: true, Suffixes: []string{"example", "pub.example"}}
	start := func(f func(context.Context, postfixtest.PeerConfig) (*postfixtest.Peer, error)) *postfixtest.Peer {
		p, err := f(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		return p
	}
	return start(postfixtest.StartOpenDKIM), start(postfixtest.StartOpenDMARC), start(postfixtest.StartRspamd)
}
