package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// arcSeals adds sets of ARC fields to the mail on its standard input, as one server of a
// domain after the other would. The first says that DMARC passes, the others that ARC does.
const arcSeals = `
import sys, dkim
selector, domain, key, number, names = (a.encode() for a in sys.argv[1:])
mail = sys.stdin.buffer.read().replace(b"\n", b"\r\n")
for i in range(int(number)):
    server = b"mx%d.%s" % (i + 1, domain)
    results = b"arc=pass" if b"\nARC-Seal:" in b"\n" + mail else b"dmarc=pass header.from=bank.example"
    mail = b"Authentication-Results: " + server + b"; " + results + b"\r\n" + mail
    fields = dkim.arc_sign(mail, selector, domain, open(key, "rb").read(), server, include_headers=names.split() or None)
    mail = b"".join(fields) + mail
sys.stdout.buffer.write(mail.replace(b"\r\n", b"\n"))
`

// arcSealer seals mail in the name of a domain.
type arcSealer struct{ domain, selector, key string }

// newARCSealer makes a key for a domain and publishes it.
func newARCSealer(t *testing.T, s *Site, domain string) arcSealer {
	t.Helper()
	dir := openDir(t)
	var zone string
	for _, args := range [][]string{{"dkim", "genkey", domain, "--dir", dir}, {"dkim", "dns", "--dir", dir}} {
		out, err := s.Postern(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		zone = out
	}
	if err := s.DNS.Add(zone); err != nil {
		t.Fatal(err)
	}
	key, err := rsaKey(filepath.Join(dir, domain))
	if err != nil {
		t.Fatal(err)
	}
	return arcSealer{domain, strings.TrimSuffix(filepath.Base(key), ".private"), key}
}

// seal adds sets. The message signatures cover the named fields, "" for those of python3-dkim.
func (a arcSealer) seal(t *testing.T, message string, sets int, names string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), python, "-c", arcSeals, a.selector, a.domain, a.key, strconv.Itoa(sets), names)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(message), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("python3-dkim: %v\n%s", err, errs.String())
	}
	return out.String()
}

// TestReplayedSeal has a stranger send what a trusted list has sealed once more. Only mail
// that the list has really sealed is let through.
func TestReplayedSeal(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{Postfix: func(c *postfixtest.Config) {
		c.Main = append(c.Main, "local_header_rewrite_clients =")
	}})
	list, evil, below := newARCSealer(t, s, sealer), newARCSealer(t, s, "spammer.example"), newARCSealer(t, s, "x."+sealer)
	if err := s.DNS.Add("spammer.example. TXT \"v=spf1 ip4:192.0.2.66 -all\"\n_dmarc.spammer.example. TXT \"v=DMARC1; p=reject\"\n"); err != nil {
		t.Fatal(err)
	}
	mail := authored(client("192.0.2.66", "", spoofer, Dora), "List-Id: <friends.list.example>\n")
	mail.Helo = "spammer.example"
	once := list.seal(t, mail.Message, 1, "")
	plain := list.seal(t, mail.Message, 1, "from to subject") // nothing is oversigned
	fifty := list.seal(t, mail.Message, 50, "")
	third := list.seal(t, mail.Message, 3, "")
	const ceo = "From: The Boss <ceo@bank.example>\n"
	replace := func(text, from, to string) string {
		t.Helper()
		if !strings.Contains(text, from) {
			t.Fatalf("no %q in\n%s", from, text)
		}
		return strings.Replace(text, from, to, 1)
	}
	field := "From: Alice <" + Banker + ">\n"
	for _, c := range []struct {
		name, message string
		passes        bool
	}{
		{"as it is", once, true},
		{"as it is, without an oversigned From", plain, true},
		{"folded anew", replace(once, field, "From:\n Alice\n\t<"+Banker+">\n"), true},
		{"other fields of a stranger", "X-Spam: no\nReply-To: <x@spammer.example>\nSender: <x@spammer.example>\n" + once, true},
		{"another order", replace(replace(once, field, ""), "Message-ID:", field+"Message-ID:"), true},
		{"fifty sets", fifty, true},
		{"three sets in another order", upsideDown(third), true},

		{"another author", replace(once, field, ceo), false},
		{"another author, not oversigned", replace(plain, field, ceo), false},
		{"a second From", ceo + once, false},
		{"a second From, not oversigned", ceo + plain, false},
		{"a second From below, not oversigned", replace(plain, "Message-ID:", ceo+"Message-ID:"), false},
		{"the same From twice", field + plain, false},
		{"a second From with a space", "X-Spam: no\n" + strings.Replace(ceo, "From:", "From :", 1) + plain, false},
		{"a second From in capitals", strings.Replace(ceo, "From:", "FROM:", 1) + plain, false},
		{"a second From of a domain that passes", "From: <" + spoofer + ">\n" + plain, false},
		{"an empty second From", "From:\n" + plain, false},
		{"a second From that is folded", "From:\n The Boss\n <ceo@bank.example>\n" + plain, false},
		{"an author more", replace(plain, "Alice <", "<ceo@bank.example>, Alice <"), false},
		{"no From", replace(plain, field, ""), false},
		{"another Subject", replace(plain, "your account", "please pay"), false},
		{"another body", plain + "Pay.\n", false},
		{"another result", replace(once, "i=1; mx1.list.example; dmarc=pass", "i=1; mx1.list.example; spf=pass; dmarc=pass"), false},
		{"a mail that the list did not seal", setOf(once, 1) + ceo + "Subject: x\n\nx\n", false},
		{"without the second of three sets", without(third, 2), false},
		{"without the last of three sets", without(third, 3), true},
		{"without the first of three sets", without(third, 1), false},
		{"the first set twice", setOf(third, 1) + third, false},
		{"fifty sets, one is missing", without(fifty, 25), false},
		{"fifty-one sets", strings.ReplaceAll(setOf(fifty, 50), "i=50;", "i=51;") + fifty, false},
		{"set 0", strings.ReplaceAll(setOf(once, 1), "i=1;", "i=0;") + once, false},
		{"sealed by a stranger on top", evil.seal(t, once, 1, ""), false},
		{"changed and sealed by a stranger", evil.seal(t, replace(once, field, ceo), 1, ""), false},
		{"sealed by a stranger", evil.seal(t, mail.Message, 1, ""), false},
		{"sealed below a trusted name", below.seal(t, mail.Message, 1, ""), false},
		{"sealed by a stranger, then by the list", list.seal(t, evil.seal(t, mail.Message, 1, ""), 1, ""), false},
		{"sealed by a stranger in the name of the list", arcSealer{sealer, list.selector, evil.key}.seal(t, mail.Message, 1, ""), false},
		{"no seal, results of the list", "Authentication-Results: mx.list.example; arc=pass; dmarc=pass header.from=bank.example\n" + mail.Message, false},
	} {
		t.Run(c.name, func(t *testing.T) { checkReplay(t, s, mail, c.message, c.passes) })
	}
	t.Run("rspamd", func(t *testing.T) {
		sealed := sealedByRspamd(t, s, list)
		checkReplay(t, s, mail, sealed, true)
		checkReplay(t, s, mail, ceo+sealed, false)
		checkReplay(t, s, mail, replace(sealed, field, ceo), false)
		checkReplay(t, s, mail, sealed+"Pay.\n", false)
		checkReplay(t, s, mail, list.seal(t, sealed, 1, ""), true)
		checkReplay(t, s, mail, evil.seal(t, sealed, 1, ""), false)
	})
}

// checkReplay sends a message and asserts whether the seal is believed.
func checkReplay(t *testing.T, s *Site, mail postfixtest.Mail, message string, passes bool) {
	t.Helper()
	c := DMARCCase{Name: "replayed", Mail: mail, Code: 250, Disposition: "quarantine", Marked: true, Want: "dis=quarantine"}
	if passes {
		c.Disposition, c.Marked, c.Want = "none", false, "dmarc=fail (p=reject dis=none) header.from=bank.example"
	}
	c.Mail.Message = message
	o, err := c.Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if o.Wrong != nil || o.Record.DMARC == "pass" || passes != (o.Rule() == "trusted_sealer") {
		t.Errorf("%v; rule %s, arc %s, dmarc %s\n%s\n%s", o.Wrong, o.Rule(), o.Record.ARC, o.Record.DMARC, o.Record.Raw, o.Delivered.Data)
	}
}

// fieldsOf returns the fields of a message with their folded lines, and the rest.
func fieldsOf(message string) (fields []string, body string) {
	header, body, _ := strings.Cut(message, "\n\n")
	for line := range strings.Lines(header + "\n") {
		if strings.IndexAny(line, " \t") == 0 {
			fields[len(fields)-1] += line
			continue
		}
		fields = append(fields, line)
	}
	return fields, "\n" + body
}

// isOf reports whether a field is one of the ARC fields of a set.
func isOf(field string, set int) bool {
	return strings.HasPrefix(field, "ARC-") && strings.Contains(field, fmt.Sprintf(": i=%d;", set))
}

// setOf returns the fields of one set.
func setOf(message string, set int) (found string) {
	fields, _ := fieldsOf(message)
	for _, f := range fields {
		if isOf(f, set) {
			found += f
		}
	}
	return found
}

// without returns a message without one set.
func without(message string, set int) (left string) {
	fields, body := fieldsOf(message)
	for _, f := range fields {
		if !isOf(f, set) {
			left += f
		}
	}
	return left + body
}

// upsideDown returns a message with its ARC fields in the opposite order, and the others
// between them.
func upsideDown(message string) string {
	fields, body := fieldsOf(message)
	before, after, rest := "", "", ""
	for i, f := range fields {
		switch {
		case !strings.HasPrefix(f, "ARC-"):
			rest += f
		case i%2 == 0:
			before = f + before
		default:
			after = f + after
		}
	}
	return before + rest + after + body
}

// sealedByRspamd returns a mail of the bank as a list's Postfix with rspamd hands it on.
func sealedByRspamd(t *testing.T, s *Site, list arcSealer) string {
	t.Helper()
	if err := postfixtest.Peers("rspamd"); err != nil {
		t.Fatal(err)
	}
	zone, err := s.Postern(t.Context(), "dkim", "dns", "--dir", filepath.Dir(filepath.Dir(list.key)))
	if err != nil {
		t.Fatal(err)
	}
	dns := newResolverAt53(t, awayZone+bankZone+zone)
	key, err := os.ReadFile(list.key)
	if err != nil {
		t.Fatal(err)
	}
	dir := openDir(t)
	path := filepath.Join(dir, "arc.key")
	if err := os.WriteFile(path, key, 0o644); err != nil {
		t.Fatal(err)
	}
	rspamd, err := postfixtest.StartRspamdMilter(t.Context(), postfixtest.PeerConfig{
		Dir: dir, Nameserver: netip.MustParseAddrPort(dns.Addr()).Addr(), Suffixes: []string{"example"},
	}, map[string]string{
		"arc.conf":      fmt.Sprintf("path = %q;\nselector = %q;\nuse_domain = %q;\n", path, list.selector, sealer),
		"greylist.conf": "enabled = false;\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rspamd.Kill)
	server := postfixtest.New(t, postfixtest.Config{
		Hostname: sealServer, Main: []string{"smtpd_milters = unix:" + rspamd.Socket, "local_header_rewrite_clients ="},
	})
	own := authored(client("192.0.2.40", "mx.bank.example", Banker, Dora), "")
	r, err := server.Send(t.Context(), postfixtest.MX, own)
	if err != nil || r.Final().Code != 250 {
		t.Fatal(r, err)
	}
	d, err := server.Delivered(t.Context(), Dora)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Headers("ARC-Seal")) != 1 {
		t.Fatalf("rspamd did not seal\n%s", d.Data)
	}
	return strings.ReplaceAll(string(d.Data), "\r\n", "\n")
}
