package e2e

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
)

// ourZone has our own domain ask receivers to reject what it did not send.
const ourZone = `home.example. TXT "v=spf1 ip4:192.0.2.1 -all"
_dmarc.home.example. TXT "v=DMARC1; p=reject"
`

// newMarkingSite is a site whose hosts share a key of marks. more are flags of
// postern-milterd, change changes Postfix.
func newMarkingSite(t *testing.T, change func(*postfixtest.Config), more ...string) *Site {
	t.Helper()
	key := filepath.Join(t.TempDir(), "mark.key")
	s := newSigningSite(t, SiteConfig{
		Milterd: append([]string{"--mark-key-file", key}, more...),
		Postfix: func(c *postfixtest.Config) {
			if change != nil {
				change(c)
			}
		},
	})
	keys, err := s.Postern(t.Context(), "dkim", "dns", "--dir", s.KeysDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DNS.Replace(ourZone + awayZone + bankZone + keys); err != nil {
		t.Fatal(err)
	}
	return s
}

// passOn sends a mail and returns what is delivered to Dora.
func passOn(t *testing.T, s *Site, service string, m postfixtest.Mail) postfixtest.Delivery {
	t.Helper()
	if r := send(t, s, service, m); r.Code != 250 {
		t.Fatalf("%s: %s", service, r)
	}
	return toDora(t, s)
}

func toDora(t *testing.T, s *Site) postfixtest.Delivery {
	t.Helper()
	d, err := s.Postfix.Delivered(t.Context(), Dora)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// markings is what a delivered mail says of its passes: each DMARC result in our
// name, and how many fields mark it.
func markings(d postfixtest.Delivery) string {
	var results []string
	for _, f := range d.Headers("Authentication-Results") {
		if _, dmarc, ok := strings.Cut(f, "dmarc="); ok && strings.HasPrefix(f, "mail.home.example;") {
			result, _, _ := strings.Cut(dmarc, " ")
			results = append(results, result)
		}
	}
	return fmt.Sprintf("%s, %d marked, %d sealed", strings.Join(results, "+"), len(d.Headers("X-Postern-Quarantine")), len(d.Headers("X-Postern-Mark")))
}

// forgery is a stranger's mail in the name of an author.
func forgery(author string) postfixtest.Mail {
	m := client("192.0.2.66", "", spoofer, Dora)
	m.Helo = "spammer.example"
	m.Message = "From: The Boss <" + author + ">\nTo: <" + Dora + ">\nSubject: please pay\nMessage-ID: <1@spammer.example>\n" +
		"Date: Thu, 26 Nov 2026 12:00:00 +0000\n\nToday.\n"
	return m
}

const (
	spoofed = "fail, 1 marked, 1 sealed"
	genuine = "pass, 0 marked, 1 sealed"
)

// A content filter gets the mail, adds fields of its own, and hands it back from
// 127.0.0.1 to a service that has main.cf's milters too.
func TestContentFilterHandsBack(t *testing.T) {
	t.Parallel()
	filter, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newMarkingSite(t, func(c *postfixtest.Config) {
		front := postfixtest.Service{Name: "front", Options: []string{"smtpd_milters=", "smtpd_proxy_filter=" + inBrackets(filter.Addr().String())}}
		c.More = append(c.More, postfixtest.Service{Name: "back"}, front)
	})
	forward(t, filter, s.Postfix.Addr("back"), "")
	own := authored(client("192.0.2.40", "mx.bank.example", Banker, Dora), "")
	for _, c := range []struct {
		mail postfixtest.Mail
		want string
	}{{forgery(Banker), spoofed}, {own, genuine}} {
		d := passOn(t, s, postfixtest.MX, c.mail)
		if got := markings(d); got != c.want {
			t.Fatalf("first pass: %s", got)
		}
		for range 2 {
			text := strings.Replace(string(d.Data), "Subject: ", "Subject: [checked] ", 1)
			d = passOn(t, s, "back", postfixtest.Mail{From: c.mail.From, To: []string{Dora}, Message: "X-Virus-Scanned: here\r\n" + text})
			if got := markings(d); got != c.want {
				t.Errorf("back from the filter: %s, want %s\n%s", got, c.want, d.Data)
			}
		}
		// A filter that changes the body keeps what is bad, and nothing else.
		text := string(d.Data) + "Scanned.\r\n"
		d = passOn(t, s, "back", postfixtest.Mail{From: c.mail.From, To: []string{Dora}, Message: text})
		if got := markings(d); (c.want == spoofed) != (len(d.Headers("X-Postern-Quarantine")) == 1) || strings.Contains(got, "pass") {
			t.Errorf("with another body: %s", got)
		}
	}
	// Behind a filter before the queue, every client is this machine, and its Received field
	// proves nothing: neither mail is marked, and DMARC by SPF fails.
	for _, m := range []postfixtest.Mail{forgery(Banker), own} {
		if got := markings(passOn(t, s, "front", m)); got != "fail, 0 marked, 0 sealed" {
			t.Errorf("behind smtpd_proxy_filter: %s", got)
		}
	}
	// Who has no mark cannot talk their way in from 127.0.0.1.
	text := "Authentication-Results: mail.home.example; dmarc=pass header.from=bank.example\nX-Postern-Mark: v=1; t=1; x=99999999999; dmarc=pass; dis=none; f=; r=; bh=; b=AAAA\n"
	d := passOn(t, s, "back", postfixtest.Mail{From: "x@bank.example", To: []string{Dora}, Message: text + forgery(Banker).Message})
	if got := markings(d); got != "fail, 0 marked, 0 sealed" {
		t.Errorf("a forged mark: %s", got)
	}
}

// Sieve's redirect, or a .forward, sends a forged mail on with sendmail(1), whose
// milter is the sign socket.
func TestRedirectedSpoofIsNotSigned(t *testing.T) {
	t.Parallel()
	s := newMarkingSite(t, func(c *postfixtest.Config) {
		// Postfix does not rewrite the header of strangers. This test's clients
		// connect from 127.0.0.1, before XCLIENT.
		c.Main = append(c.Main, "local_header_rewrite_clients =", "myorigin = home.example")
	})
	d := passOn(t, s, postfixtest.MX, forgery(Alice))
	if got := markings(d); got != spoofed {
		t.Fatalf("first pass: %s", got)
	}
	redirect := func(text string, reason record.Reason, good int) {
		t.Helper()
		if err := s.Postfix.Sendmail(t.Context(), text, "-i", "-f", spoofer, Dora); err != nil {
			t.Fatal(err)
		}
		r, err := s.SignRecord(t.Context(), spoofer, Dora)
		if err != nil {
			t.Fatal(err)
		}
		d := toDora(t, s)
		found, all, err := VerifyDKIM(t.Context(), s.DNS, d.Data)
		if err != nil || r.Reason != string(reason) || found != good || all != good {
			t.Errorf("%s with %d good of %d signatures, want %s with %d (%v)\n%s", r.Reason, found, all, reason, good, err, d.Data)
		}
	}
	redirect("X-Sieve-Redirected-From: "+Dora+"\nReturn-Path: <"+spoofer+">\n"+strings.ReplaceAll(string(d.Data), "\r\n", "\n"), record.SignMarked, 0)
	// cleanup(8) of sendmail(1) completes a bare From into our domain.
	for _, bare := range []string{"alice", "alice%home.example", "home.example!alice"} {
		d = passOn(t, s, postfixtest.MX, forgery(bare))
		if from := d.Headers("From"); len(from) != 1 || strings.Contains(from[0], "@") {
			t.Fatalf("%s was completed at once: %q", bare, from)
		}
		redirect(strings.ReplaceAll(string(d.Data), "\r\n", "\n"), record.SignMarked, 0)
	}
	// Mail of a program on this machine has no mark.
	redirect("From: <"+Alice+">\nSubject: x\n\nx\n", record.Signed, 2)
}

// Vacation notices have the null sender, which cleanup(8) reports as an empty string.
func TestVacationIsSigned(t *testing.T) {
	t.Parallel()
	for _, action := range []string{"accept", "tempfail"} {
		s := newMarkingSite(t, func(c *postfixtest.Config) {
			for i, line := range c.Main {
				c.Main[i] = strings.Replace(line, "default_action=accept", "default_action="+action, 1)
			}
		})
		text := "From: Alice <" + Alice + ">\nTo: <" + Dora + ">\nSubject: away\nAuto-Submitted: auto-replied\n\nBack on Monday.\n"
		if err := s.Postfix.Sendmail(t.Context(), text, "-i", "-f", "<>", Dora); err != nil {
			t.Fatal(err)
		}
		d := toDora(t, s)
		good, all, err := VerifyDKIM(t.Context(), s.DNS, d.Data)
		if err != nil || good != 2 || all != 2 || d.Sender != "" {
			t.Errorf("default_action=%s: %d good of %d signatures, sender %q, %v", action, good, all, d.Sender, err)
		}
	}
}

// Postfix's own bounces reach the milter with internal_mail_filter_classes.
func TestBounceIsSigned(t *testing.T) {
	t.Parallel()
	s := newMarkingSite(t, func(c *postfixtest.Config) {
		c.Main = append(c.Main, "internal_mail_filter_classes = bounce", "myorigin = home.example", "default_transport = error:5.1.1 nobody there")
	})
	if err := s.Postfix.Sendmail(t.Context(), "From: <"+Alice+">\nSubject: x\n\nx\n", "-i", "-f", Alice, "x@away.example"); err != nil {
		t.Fatal(err)
	}
	d, err := s.Postfix.Delivered(t.Context(), Alice)
	if err != nil {
		t.Fatal(err)
	}
	good, all, err := VerifyDKIM(t.Context(), s.DNS, d.Data)
	if err != nil || good != 2 || all != 2 || d.Sender != "" {
		t.Errorf("%d good of %d signatures, sender %q, %v\n%s", good, all, d.Sender, err, d.Data)
	}
}

// The backup MX has a Postfix and a milter of its own. The primary knows its mark
// when they share the key, and its address in any case.
func TestBackupMX(t *testing.T) {
	t.Parallel()
	const backup = "192.0.2.200"
	for _, c := range []struct {
		name          string
		flags         []string // of the primary
		shared, milts bool     // the backup shares the key, and has a milter at all
		spoof, own    string
	}{
		{"a trusted relay with the same key", []string{"--trusted-relays=" + backup}, true, true, spoofed, genuine},
		{"the same key alone", nil, true, true, spoofed, "fail, 1 marked, 1 sealed"},
		{"a trusted relay with another key", []string{"--trusted-relays=" + backup}, false, true, "fail+fail, 1 marked, 1 sealed", "pass+pass, 0 marked, 1 sealed"},
		{"a trusted relay without a milter", []string{"--trusted-relays=192.0.2.128/25"}, false, false, spoofed, genuine},
		{"one that refuses and says SPF", []string{"--trusted-relays=" + backup, "--spf-reject=fail", "--dmarc-enforce=strict"}, false, false, spoofed, genuine},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, err := postfixtest.FreeAddr()
			if err != nil {
				t.Fatal(err)
			}
			milters := "smtpd_milters="
			if c.milts {
				milters = "smtpd_milters=inet:" + addr
			}
			s := newMarkingSite(t, func(p *postfixtest.Config) {
				p.More = append(p.More, postfixtest.Service{Name: "backup", Options: []string{milters}})
			}, c.flags...)
			startBackup(t, s, addr, c.shared)
			own := authored(client("192.0.2.40", "mx.bank.example", Banker, Dora), "")
			for _, way := range []struct {
				mail postfixtest.Mail
				want string
			}{{forgery(Banker), c.spoof}, {own, c.own}} {
				d := passOn(t, s, "backup", way.mail)
				again := client(backup, "mx2.home.example", way.mail.From, Dora)
				again.Message = string(d.Data)
				d = passOn(t, s, postfixtest.MX, again)
				if got := markings(d); got != way.want {
					t.Errorf("at the primary: %s, want %s\n%s", got, way.want, d.Data)
				}
			}
		})
	}
}

// startBackup runs the milter of a backup MX.
func startBackup(t *testing.T, s *Site, addr string, sharesKey bool) {
	t.Helper()
	c, err := s.MilterdConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "mark.key")
	for i, arg := range c.Args {
		switch arg {
		case "--listen-verify":
			c.Args[i+1] = "inet:" + addr
		case "--listen-sign":
			c.Args[i+1] = "unix:" + filepath.Join(t.TempDir(), "sign.sock")
		case "--admin", "--metrics-listen":
			c.Args[i+1] = ""
		case "--mark-key-file":
			if !sharesKey {
				c.Args[i+1] = key
			}
		}
	}
	c.Args = append(c.Args, "--trusted-relays=198.51.100.99", "--spf-reject=never", "--dmarc-enforce=quarantine")
	d, err := postfixtest.StartDaemon(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the backup's log ends:\n%s", d.LogTail())
		}
		if err := d.StopUnlessEnded(); err != nil {
			t.Error(err)
		}
	})
}

// main.cf may still ask for an old protocol; all that we do to a mail works with it.
func TestMilterProtocols(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"2", "3", "4", "6"} {
		t.Run(version, func(t *testing.T) {
			s := newMarkingSite(t, func(c *postfixtest.Config) { c.Main = append(c.Main, "milter_protocol = "+version) })
			runSigned(t, s, bySubmission(As(Alice, Alice, Dora), record.Signed, 2))
			runSigned(t, s, SignCase{"sendmail(1)", Sendmail, ofProgram(Bob), record.Signed, 2})

			m := forgery(Banker)
			m.Message = forgedResults + "X-Postern-Quarantine: not\n" + m.Message
			d := passOn(t, s, postfixtest.MX, m)
			if got := markings(d); got != spoofed {
				t.Errorf("%s\n%s", got, d.Data)
			}
			if _, err := ourResults(d, []string{"dmarc=fail (p=reject dis=quarantine)"}); err != nil {
				t.Error(err)
			}
			if got := d.Header("X-Postern-Quarantine"); got != "dmarc" {
				t.Errorf("mark %q", got)
			}
			// Several mails in one session, and a signature that comes back intact.
			session, err := s.Postfix.Dial(t.Context(), postfixtest.MX)
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			signed, err := s.signedMessage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			back := fromOutside(Stranger, Dora)
			back.Message = signed
			if err := session.Open(back); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				o, err := s.verified(t.Context(), session, back, []string{"dkim=pass (2048-bit key) header.d=home.example", "header.a=ed25519-sha256"})
				if err != nil || o.Wrong != nil {
					t.Error(err, o.Wrong)
				}
			}
		})
	}
}
