package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// shapeHeaders are what mail programs and mailing lists write above a body, besides
// From, To and X-Number.
func shapeHeaders() []string {
	return []string{
		"",
		"Subject: plain\nDate: Mon, 1 Jan 2024 00:00:00 +0000\nMessage-ID: <one@home.example>\n",
		"Subject:\n",
		"Subject: folded\n\tand folded\n  again \n",
		"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?iso-8859-1?B?Z3L832U=?=\nReply-To: =?utf-8?q?B=C3=B6b?= <bob@home.example>\n",
		"SUBJECT:no space\ncc:  Bob   <bob@home.example> (a \"comment\") ,\n\t<press@home.example>\t\n",
		"Subject: Grüße, raw\nOrganization: Käse\n",
		"Cc: bob@home.example\nSubject: a list\nList-Id: <l.home.example>\nList-Unsubscribe: <https://home.example/u>,\n <mailto:u@home.example>\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\nSender: list@home.example\n",
		"Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\nReceived: from c by a; Mon, 1 Jan 2024 00:00:00 +0000\nComments: one\nComments: two\nSubject: twice\n",
		"In-Reply-To: <a@b.example>\nReferences: <a@b.example>" + strings.Repeat("\n <reference-of-some-length@b.example>", 30) + "\nSubject: Re: long\n",
		"Subject: " + strings.Repeat("word ", 180) + "\n",
		"Resent-From: alice@home.example\nResent-To: dora@home.example\nResent-Date: Mon, 1 Jan 2024 00:00:00 +0000\nSubject: resent; with = signs: and colons\n",
	}
}

// shapeBodies are bodies, with the fields that describe them.
func shapeBodies() []string {
	mime := func(kind, encoding, body string) string {
		return "MIME-Version: 1.0\nContent-Type: " + kind + "\nContent-Transfer-Encoding: " + encoding + "\n\n" + body
	}
	part := func(kind, body string) string { return "--b1\nContent-Type: " + kind + "\n\n" + body + "\n" }
	return []string{
		"\n",
		"\n\n\n\n",
		"\nHello.\n",
		"\nno final line end",
		"\nblank lines at the end\n\n\n \n\t\n\n",
		"\n.dot\n..two\n.\n. \n",
		"\n  spaces   and\ttabs \t \n\t\n   \nx \n",
		"\n" + strings.Repeat("y", 998) + "\n",
		"\ncontrol \x01\x07\x0c\x7f characters\n",
		"\nundeclared gr\xfc\xdfe\n",
		mime("text/plain; charset=utf-8", "8bit", "Grüße\n\n-- \nAlice\n"),
		mime("text/plain; charset=utf-8; format=flowed", "quoted-printable", "Gr=C3=BC=C3=9Fe =\nsoft =20\n"),
		mime("application/octet-stream; name=\"a b\"", "base64", strings.Repeat("SGVsbG8sIHdvcmxkIGhlbGxvLCB3b3JsZCBoZWxsbywgd29ybGQ=\n", 50)),
		mime("text/html; charset=utf-8", "8bit", "<html>\n<p>ü&nbsp;</p>\n</html>\n"),
		mime("multipart/alternative;\n\tboundary=\"b1\"", "8bit", "preamble\n"+part("text/plain", "text  ")+part("text/html", "<b>t</b>")+"--b1--\nepilogue\n"),
		mime("multipart/mixed; boundary=b1", "7bit", part("multipart/related; boundary=b2", "--b2\n\nx\n--b2--")+part("message/rfc822", "From: <a@b.example>\nSubject: inner\n\ninner\n.\n")+"--b1--\n"),
		mime("multipart/mixed; boundary=b1", "binary", part("text/plain; charset=utf-8\nContent-Transfer-Encoding: binary", "ü")+"no end"),
		"\n" + strings.Repeat("A line of a long mail, which comes in many pieces. \n", 1400),
	}
}

// Mail of every shape goes through a real Postfix, and what is delivered is verified
// by three programs of others, each of which gets all of it at once. opendkim also signs
// it by the same tables, and the signatures are compared.
func TestShapesVerifyElsewhere(t *testing.T) {
	t.Parallel()
	s, conf := newTableSite(t)
	dir := t.TempDir()
	m := As(Alice, Alice, Dora)
	c, err := s.Postfix.Dial(t.Context(), postfixtest.Submission)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Open(m); err != nil {
		t.Fatal(err)
	}
	send := func(number, from, rest string) {
		t.Helper()
		m.Message = fmt.Sprintf("From: %s\nTo: <%s>\nX-Number: %s\n%s", from, Dora, number, rest)
		r, err := c.Send(m)
		if err != nil || r.Final().Code != 250 {
			t.Fatalf("shape %s: %v, %v", number, r.Final(), err)
		}
	}
	receive := func(dir string) postfixtest.Delivery {
		t.Helper()
		d, err := s.Postfix.Delivered(t.Context(), Dora)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, d.Header("X-Number")), d.Data, 0o644); err != nil {
			t.Fatal(err)
		}
		return d
	}
	count, delivered := 0, make(map[string]postfixtest.Delivery)
	for i, header := range shapeHeaders() {
		for j, body := range shapeBodies() {
			send(fmt.Sprintf("%d-%d", i, j), "Alice <"+Alice+">", header+body)
			count++
		}
		for range shapeBodies() {
			d := receive(dir)
			delivered[d.Header("X-Number")] = d
		}
	}
	authors := t.TempDir()
	for _, a := range authorCases() {
		send(a.number, a.from, "Subject: who signs\n\nHello.\n")
		ours := whoSigned(signedByUs(receive(authors)))
		theirs := whoSigned(signedByOpenDKIM(t, conf, filepath.Join(authors, a.number)))
		if ours != a.ours || theirs != a.theirs {
			t.Errorf("From: %s: we sign as %q, want %q; opendkim as %q, want %q", a.from, ours, a.ours, theirs, a.theirs)
		}
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	if count < 200 {
		t.Fatalf("%d shapes", count)
	}
	_, port, err := net.SplitHostPort(s.DNS.Addr())
	if err != nil {
		t.Fatal(err)
	}
	judge(t, dir, count, "dkimpy", "rsa-sha256 pass, ed25519-sha256 pass", python, "-c", dkimpyOfFolder, dir, port)
	judge(t, dir, count, "Mail::DKIM", "rsa-sha256 pass", "/usr/bin/perl", "-e", mailDKIMOfFolder, dir, port)
	judgeOpenDKIM(t, s, dir, count)
	compareWithOpenDKIM(t, conf, dir, delivered)
}

// judge has a program say for each file of a folder what its signatures are, and
// compares that with what is wanted of each.
func judge(t *testing.T, dir string, count int, who, want, name string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", who, err, out)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		seen++
		number, verdict, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if verdict != want {
			text, _ := os.ReadFile(filepath.Join(dir, number))
			t.Errorf("%s says %q of shape %s, want %q:\n%.2000s", who, verdict, number, want, text)
		}
	}
	if seen != count {
		t.Errorf("%s judged %d of %d mails", who, seen, count)
	}
}

const dkimpyOfFolder = `
import os, sys, dkim, dns.resolver
r = dns.resolver.Resolver(configure=False)
r.nameservers, r.port = ["127.0.0.1"], int(sys.argv[2])
known = {}
def txt(name, timeout=5):
    if name not in known:
        known[name] = b"".join(r.resolve(name.decode(), "TXT")[0].strings)
    return known[name]
for f in sorted(os.listdir(sys.argv[1])):
    d = dkim.DKIM(open(os.path.join(sys.argv[1], f), "rb").read())
    n = sum(1 for k, v in d.headers if k.lower() == b"dkim-signature")
    found = []
    for i in range(n):
        try:
            ok = d.verify(idx=i, dnsfunc=txt)
        except Exception as e:
            ok = repr(e)
        found.append(d.signature_fields[b"a"].decode() + (" pass" if ok is True else " " + str(ok)))
    print(f + ": " + ", ".join(sorted(found, reverse=True)))
`

// mailDKIMOfFolder leaves Ed25519 out, which needs a module that Debian does not
// install with it.
const mailDKIMOfFolder = `
use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS::Resolver;
my ($dir, $port) = @ARGV;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => ["127.0.0.1"], port => $port));
opendir(my $h, $dir) or die;
for my $f (sort grep { !/^\./ } readdir $h) {
  my $v = Mail::DKIM::Verifier->new(); open(my $in, "<:raw", "$dir/$f") or die; local $/; my $text = <$in>;
  $v->PRINT($text); $v->CLOSE();
  print "$f: ", join(", ", map { $_->algorithm . " " . $_->result } grep { $_->algorithm =~ /^rsa/ } $v->signatures), "\n";
}
`

// judgeOpenDKIM has opendkim verify the RSA signature of all mails.
func judgeOpenDKIM(t *testing.T, s *Site, dir string, count int) {
	t.Helper()
	record, err := s.DNSText(t.Context(), "postern._domainkey.home.example")
	if err != nil {
		t.Fatal(err)
	}
	conf := t.TempDir()
	for name, text := range map[string]string{
		"zone": "postern._domainkey.home.example " + record + "\n",
		"conf": "Mode v\nTestDNSData " + filepath.Join(conf, "zone") + "\n",
	} {
		if err := os.WriteFile(filepath.Join(conf, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "/usr/sbin/opendkim", "-x", filepath.Join(conf, "conf"), "-t", strings.Join(names, ",")).CombinedOutput()
	if n := strings.Count(string(out), "verification (s=postern, d=home.example, 2048-bit key) succeeded"); n != count {
		t.Errorf("opendkim verifies %s of %d mails: %v\n%.3000s", strconv.Itoa(n), count, err, out)
	}
}
