package sign

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/dkim"
)

// Mails as they are signed: what a script or a device sends, what a mail program
// sends, what goes to Bcc only, and a newsletter.
var outgoing = map[string]struct{ header, body string }{
	"script": {"From: a@example.com|To: b@example.org|Subject: disk full", "it is\r\n"},
	"program": {
		"Received: from laptop (laptop.example [192.0.2.1])\r\n\tby mx.example.com|Date: Thu, 26 Nov 2026 12:00:00 +0000|MIME-Version: 1.0|User-Agent: program|Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe_an?=\r\n =?UTF-8?Q?_alle?=|To: Bob <b@example.org>,\r\n Carol <c@example.org>|References: <1@example.com>\r\n\t<2@example.com>|In-Reply-To: <2@example.com>|From: \"Alice A.\" <a@example.com>|Message-ID: <3@example.com>|Content-Type: text/plain; charset=UTF-8; format=flowed|Content-Transfer-Encoding: 8bit",
		"Hello  all,\r\n\r\nthis is plain ASCII, whatever the label says. \r\n-- \r\nAlice\r\n\r\n",
	},
	"umlauts":    {"From: a@example.com|To: b@example.org|Subject: x|MIME-Version: 1.0|Content-Type: text/plain; charset=UTF-8|Content-Transfer-Encoding: 8bit", "Gr\u00fc\u00dfe\r\n"},
	"bcc":        {"From: a@example.com|Subject: to all of you|Date: Thu, 26 Nov 2026 12:00:00 +0000|Message-ID: <4@example.com>", "x\r\n"},
	"newsletter": {"From: News <news@example.com>|To: b@example.org|Subject: news|Date: Thu, 26 Nov 2026 12:00:00 +0000|Message-ID: <5@example.com>|List-Id: <news.example.com>|List-Unsubscribe: <https://example.com/u?1>|List-Unsubscribe-Post: List-Unsubscribe=One-Click|MIME-Version: 1.0|Content-Type: text/html", "<p>news\r\n"},
}

type relayed struct {
	header []dkim.Field
	body   string
}

// habit is a change that a relay makes to a signed mail.
type habit struct {
	name, mails string // "": all
	do          func(m *relayed)
	breaks      bool // and the signature must not survive it
}

func atTop(lines string) func(*relayed) {
	return func(m *relayed) { m.header = append(fields(lines), m.header...) }
}

func atEnd(lines string) func(*relayed) {
	return func(m *relayed) { m.header = append(m.header, fields(lines)...) }
}

// rewrite changes the values of some fields.
func rewrite(name string, value func(string) string) func(*relayed) {
	return func(m *relayed) {
		for i := range m.header {
			if name == "" || m.header[i].Is(name) {
				m.header[i].Value = value(m.header[i].Value)
			}
		}
	}
}

func to(value string) func(string) string { return func(string) string { return value } }

func rename(name func(string) string) func(*relayed) {
	return func(m *relayed) {
		for i := range m.header {
			m.header[i].Name = name(m.header[i].Name)
		}
	}
}

func without(names ...string) func(*relayed) {
	return func(m *relayed) {
		m.header = slices.DeleteFunc(m.header, func(f dkim.Field) bool { return slices.ContainsFunc(names, f.Is) })
	}
}

func bodyOf(change func(string) string) func(*relayed) {
	return func(m *relayed) { m.body = change(m.body) }
}

func both(first, second func(*relayed)) func(*relayed) {
	return func(m *relayed) { first(m); second(m) }
}

func replace(old, with string) func(string) string {
	return func(s string) string { return strings.ReplaceAll(s, old, with) }
}

var unfold = strings.NewReplacer("\r\n", "").Replace

var habits = []habit{
	{name: "traces", do: atTop("Return-Path: <a@example.com>|Delivered-To: b@example.org|Received: from mx by relay; now")},
	{name: "Message-ID, as RFC 6409 has it", mails: "script umlauts", do: atEnd("Message-ID: <relay@relay.example>")},
	{name: "Message-ID on top", mails: "script umlauts", do: atTop("Message-Id: <relay@relay.example>")},
	{name: "Date", mails: "script umlauts", do: atEnd("Date: Thu, 26 Nov 2026 12:00:01 +0000 (UTC)")},
	{name: "MIME-Version and its kind", mails: "script bcc", do: atEnd("MIME-Version: 1.0|Content-Type: text/plain; charset=us-ascii|Content-Transfer-Encoding: 7bit")},
	{name: "Content-Type alone", mails: "script bcc", do: atTop("Content-Type: text/plain")},
	{name: "undisclosed recipients", mails: "bcc", do: atEnd("To: undisclosed-recipients:;")},
	{name: "undisclosed recipients, in Exchange's words", mails: "bcc", do: atTop("To: Undisclosed recipients:;")},
	{name: "Sender", do: atTop("Sender: a=example.com@relay.example")},
	{name: "filters' marks", do: atTop("X-Spam-Status: No|X-Virus-Scanned: yes|Authentication-Results: relay.example; dkim=pass header.d=example.com")},
	{name: "Exchange's fields", do: atTop("Thread-Topic: disk full|Thread-Index: AdX=|Importance: normal|Accept-Language: de-DE|Content-Language: de-DE|X-MS-Has-Attach:")},
	{name: "an ARC set and a signature of the relay", do: atTop("ARC-Seal: i=1; cv=none|ARC-Message-Signature: i=1|ARC-Authentication-Results: i=1; relay.example; none|DKIM-Signature: v=1; a=rsa-sha256; d=relay.example; s=x; h=from; bh=AAAA; b=AAAA")},
	{name: "Sieve redirect", do: atTop("X-Sieve: Redirected|X-Sieve-Redirected-From: b@example.org|Received: from localhost")},
	{name: "resent by hand", do: atTop("Resent-From: b@example.org|Resent-To: c@example.net|Resent-Date: now|Resent-Message-ID: <6@example.org>")},
	{name: "a list that leaves the mail alone", mails: "script program umlauts", do: atTop("List-Id: <list.example.net>|List-Post: <mailto:list@example.net>|List-Unsubscribe: <mailto:u@example.net>|Precedence: list|Errors-To: x@example.net")},
	{name: "unfolded", do: rewrite("", unfold)},
	{name: "folded with tabs", mails: "program", do: rewrite("", replace("\r\n ", "\r\n\t"))},
	{name: "folded elsewhere", mails: "program", do: rewrite("References", func(v string) string { return strings.ReplaceAll(unfold(v), "\t<", "\r\n <") })},
	{name: "folded at each recipient", mails: "program", do: rewrite("To", func(v string) string { return strings.ReplaceAll(unfold(v), ", ", ",\r\n        ") })},
	{name: "space around values", do: rewrite("", func(v string) string { return "  " + strings.TrimSpace(v) + " \t" })},
	{name: "no space behind colons", do: rewrite("", func(v string) string { return strings.TrimLeft(v, " ") })},
	{name: "names in lower case", do: rename(strings.ToLower)},
	{name: "names in upper case", do: rename(strings.ToUpper)},
	{name: "fields sorted", do: func(m *relayed) {
		slices.SortStableFunc(m.header, func(a, b dkim.Field) int { return strings.Compare(a.Name, b.Name) })
	}},
	{name: "signatures at the end", do: func(m *relayed) { m.header = append(m.header[2:len(m.header):len(m.header)], m.header[:2]...) }},
	{name: "Received and X- fields removed", mails: "program", do: without("Received", "User-Agent")},
	{name: "8bit relabelled for a hop without 8BITMIME", mails: "program", do: rewrite("Content-Transfer-Encoding", to(" 7bit"))},
	{name: "7bit relabelled with quotes", mails: "program", do: rewrite("Content-Transfer-Encoding", to(" 7BIT (checked)"))},
	{name: "the label removed", mails: "program umlauts", do: without("Content-Transfer-Encoding")},
	{name: "a label added", mails: "script bcc newsletter", do: atEnd("Content-Transfer-Encoding: 7bit")},
	{name: "space at line ends lost", mails: "program", do: bodyOf(replace(" \r\n", "\r\n"))},
	{name: "space at line ends added", do: bodyOf(replace("\r\n", "  \r\n"))},
	{name: "runs of space made one", mails: "program", do: bodyOf(replace("  ", " "))},
	{name: "tabs made spaces", mails: "program", do: bodyOf(replace(" is ", "\tis "))},
	{name: "empty lines at the end lost", mails: "program", do: bodyOf(func(b string) string { return strings.TrimRight(b, "\r\n") + "\r\n" })},
	{name: "empty lines at the end added", do: bodyOf(func(b string) string { return b + "\r\n\r\n" })},
	{name: "relay without 8BITMIME and without a Message-ID", mails: "umlauts", do: atEnd("Message-ID: <relay@relay.example>|Date: now")},

	{name: "Subject tagged", do: rewrite("Subject", func(v string) string { return " [list]" + v }), breaks: true},
	{name: "Subject decoded", mails: "program", do: rewrite("Subject", to(" Gr\u00fc\u00dfe an alle")), breaks: true},
	{name: "From rewritten by a list", do: rewrite("From", to(" Alice via list <list@example.net>")), breaks: true},
	{name: "a second From", do: atTop("From: ceo@example.com"), breaks: true},
	{name: "a second From below", do: atEnd("From: ceo@example.com"), breaks: true},
	{name: "a second Subject", do: atTop("Subject: pay this"), breaks: true},
	{name: "a second To", mails: "script program newsletter", do: atTop("To: victim@example.net"), breaks: true},
	{name: "Reply-To added", do: atTop("Reply-To: list@example.net"), breaks: true},
	{name: "Cc added", do: atEnd("Cc: list@example.net"), breaks: true},
	{name: "To rewritten", mails: "program", do: rewrite("To", to(" list@example.net")), breaks: true},
	{name: "Date rewritten", mails: "program bcc", do: rewrite("Date", to(" Fri, 27 Nov 2026 12:00:00 +0000")), breaks: true},
	{name: "a second Date", mails: "program bcc", do: atTop("Date: Fri, 27 Nov 2026 12:00:00 +0000"), breaks: true},
	{name: "a second Message-ID", mails: "program bcc", do: atTop("Message-ID: <7@example.net>"), breaks: true},
	{name: "a second Content-Type", mails: "program newsletter", do: atTop("Content-Type: multipart/mixed; boundary=x"), breaks: true},
	{name: "another Content-Type", mails: "newsletter", do: rewrite("Content-Type", to(" text/plain")), breaks: true},
	{name: "another unsubscription", mails: "newsletter", do: rewrite("List-Unsubscribe", to(" <https://example.net/>")), breaks: true},
	{name: "a footer", do: bodyOf(func(b string) string { return b + "_____\r\nlist mailing list\r\n" }), breaks: true},
	{name: "a disclaimer on top", do: bodyOf(func(b string) string { return "EXTERNAL\r\n" + b }), breaks: true},
	{name: "body in quoted-printable", mails: "umlauts", do: both(rewrite("Content-Transfer-Encoding", to(" quoted-printable")), bodyOf(to("Gr=C3=BC=C3=9Fe\r\n"))), breaks: true},
	{name: "body in base64", mails: "umlauts", do: both(rewrite("Content-Transfer-Encoding", to(" base64")), bodyOf(to("R3LDvMOfZQ==\r\n"))), breaks: true},
	{name: "body cut", mails: "program", do: bodyOf(func(b string) string { return b[:20] + "\r\n" }), breaks: true},
	{name: "HTML made text", mails: "newsletter", do: both(rewrite("Content-Type", to(" text/plain")), bodyOf(to("news\r\n"))), breaks: true},
}

// minHabits is how many of each kind there must be.
const minHabits = 30

// TestRelays applies the changes of relays after signing. Our verifier and two others
// verify the result.
func TestRelays(t *testing.T) {
	keys := bothKeys(t)
	z := zoneOf(t, keys)
	var cases []arrived
	survived := 0
	for _, h := range habits {
		if !h.breaks {
			survived++
		}
		for name, mail := range outgoing {
			if h.mails != "" && !slices.Contains(strings.Fields(h.mails), name) {
				continue
			}
			m := &relayed{header: fields(mail.header), body: mail.body}
			r := signed(t, sign(t, New(Options{}, keys), m.header, m.body), 2)
			m.header = append(r.Fields, m.header...)
			h.do(m)
			cases = append(cases, arrived{name: h.name + ", " + name, mail: m, pass: !h.breaks})
		}
	}
	if survived < minHabits {
		t.Errorf("%d habits that a signature must survive, want %d", survived, minHabits)
	}
	t.Run("postern", func(t *testing.T) { judgeOurselves(t, z, cases) })
	t.Run("dkimpy", func(t *testing.T) { judgeByDkimpy(t, z, cases) })
	t.Run("opendkim", func(t *testing.T) { judgeByOpenDKIM(t, z, cases) })
}

// arrived is a mail at its recipient's, and whether our signatures must pass.
type arrived struct {
	name string
	mail *relayed
	pass bool
}

func judgeOurselves(t *testing.T, z zone, cases []arrived) {
	for _, c := range cases {
		v := dkim.Verifier{Resolver: z, Want: func(domain, _ string) bool { return domain == "example.com" }}
		m := v.Start(t.Context(), c.mail.header, "example.com")
		m.Write([]byte(c.mail.body))
		for _, s := range m.Finish().Signatures {
			want := dkim.Fail
			if c.pass {
				want = dkim.Pass
			}
			if s.Status != want {
				t.Errorf("%s: %s: %s (%s), want %s", c.name, s.Algorithm, s.Status, s.Reason, want)
			}
		}
	}
}

const dkimpyJudges = `
import sys, dkim, glob
zone = dict(line.rstrip("\n").split("\t") for line in open(sys.argv[1] + "/zone"))
def txt(name, timeout=5):
    return zone.get(name.decode().rstrip("."), "").encode()
for path in sorted(glob.glob(sys.argv[1] + "/*.eml")):
    d = dkim.DKIM(open(path, "rb").read())
    results = []
    for i, (name, value) in enumerate(h for h in d.headers if h[0].strip().lower() == b"dkim-signature"):
        if b"d=example.com" in value:
            try: results.append(d.verify(idx=i, dnsfunc=txt))
            except dkim.DKIMException: results.append(False)
    print(" ".join(str(r) for r in results))
`

func judgeByDkimpy(t *testing.T, z zone, cases []arrived) {
	needs(t, "/usr/bin/python3", "/usr/lib/python3/dist-packages/dkim", "/usr/lib/python3/dist-packages/nacl")
	dir := writeArrived(t, z, cases)
	lines := strings.Split(strings.TrimSpace(run(t, "/usr/bin/python3", "-c", dkimpyJudges, dir)), "\n")
	if len(lines) != len(cases) {
		t.Fatalf("%d verdicts on %d mails", len(lines), len(cases))
	}
	for i, c := range cases {
		want := "False False"
		if c.pass {
			want = "True True"
		}
		if lines[i] != want {
			t.Errorf("%s: %s, want %s", c.name, lines[i], want)
		}
	}
}

func judgeByOpenDKIM(t *testing.T, z zone, cases []arrived) {
	needs(t, "/usr/sbin/opendkim")
	dir := writeArrived(t, z, cases)
	for i, c := range cases {
		out := opendkimVerdict(t, dir, fmt.Sprintf("%s/%03d.eml", dir, i))
		if got := strings.Contains(out, "verification (s=rsa, d=example.com, 2048-bit key) succeeded"); got != c.pass {
			t.Errorf("%s: %s", c.name, out)
		}
	}
}

// writeArrived writes the mails, by their index, and the zone in the forms that
// dkimpy and opendkim read.
func writeArrived(t *testing.T, z zone, cases []arrived) string {
	t.Helper()
	dir := t.TempDir()
	var lines, records strings.Builder
	for name, text := range z.texts {
		fmt.Fprintf(&lines, "%s\t%s\n", name, text)
		fmt.Fprintf(&records, "%s %s\n", name, text)
	}
	files := map[string]string{"zone": lines.String(), "keys": records.String(), "conf": "Mode v\nTestDNSData " + dir + "/keys\n"}
	for i, c := range cases {
		files[fmt.Sprintf("%03d.eml", i)] = wire(c.mail.header, c.mail.body)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
