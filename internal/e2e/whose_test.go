package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// wayOfMail is one way on which mail reaches the milter, and what it becomes there.
type wayOfMail struct {
	name    string
	service string // of postfixtest, or Sendmail
	mail    postfixtest.Mail
	whose   string // of the record
	reason  string
	signed  int // DKIM-Signature fields of ours on the delivered mail
	good    int // that verify
}

// TestWhoseMail takes each row of the table of whose mail, each special way, and mail
// that comes back, through a real Postfix. No mail is signed twice, and the fields of
// DKIM2 arrive as they were sent.
func TestWhoseMail(t *testing.T) {
	t.Parallel()
	const relay = "192.0.2.200"
	both, err := postfixtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	s := newMarkingSite(t, func(c *postfixtest.Config) {
		bySession := "smtpd_milters=inet:" + both
		ours := ""
		for _, line := range c.Main {
			if at := strings.Index(line, "inet:"); strings.HasPrefix(line, "non_smtpd_milters") && at > 0 {
				ours, _, _ = strings.Cut(line[at:], ",")
			}
		}
		c.Main = append(c.Main, "local_header_rewrite_clients =", "myorigin = home.example", "internal_mail_filter_classes = bounce", "default_transport = error:5.1.1 nobody there")
		c.More = []postfixtest.Service{
			{Name: "login", Login: true, Options: []string{bySession}},
			{Name: "originating", Options: []string{bySession, "milter_macro_daemon_name=originating"}},
			{Name: "session", Options: []string{bySession, "milter_macro_daemon_name=MX"}},
			{Name: "back"}, // the content filter's, for mail from outside
			{Name: "list", Options: []string{"smtpd_milters=" + ours}}, // Mailman's, and the content filter's for mail that leaves
		}
	}, "--listen=inet:"+both, "--internal-networks=192.0.2.77", "--trusted-relays="+relay)

	outside, inside := fromOutside(Alice, Dora), client("192.0.2.77", "in.home.example", Alice, Dora)
	outside.Message, inside.Message = dkim2Mail(Alice), dkim2Mail(Alice)
	user := As(Alice, Alice, Dora)
	user.Message = dkim2Mail(Alice)
	for _, way := range []wayOfMail{
		{"a user, at submission", postfixtest.Submission, user, "sign_socket", "signed", 2, 2},
		{"a program, by sendmail(1)", Sendmail, postfixtest.Mail{From: Alice, To: []string{Dora}, Message: dkim2Mail(Alice)}, "sign_socket", "signed", 2, 2},
		{"a stranger, at port 25", postfixtest.MX, outside, "verify_socket", "", 0, 0},
		{"a user, at a socket for both", "login", user, "login", "signed", 2, 2},
		{"a service", "originating", outside, "daemon_name", "signed", 2, 2},
		{"an own network", "session", inside, "internal_network", "signed", 2, 2},
		{"a stranger, at a socket for both", "session", outside, "none_of_these", "", 0, 0},
		{"this machine, at a socket for both", "session", postfixtest.Mail{From: Alice, To: []string{Dora}, Message: dkim2Mail(Alice)}, "none_of_these", "", 0, 0},
	} {
		way.run(t, s)
	}

	t.Run("mail that comes back", func(t *testing.T) { comesBack(t, s, user, relay) })
	t.Run("Mailman", func(t *testing.T) { overMailman(t, s, user) })
	t.Run("a bounce", func(t *testing.T) {
		if err := s.Postfix.Sendmail(t.Context(), "From: <"+Alice+">\nSubject: x\n\nx\n", "-i", "-f", Alice, "x@away.example"); err != nil {
			t.Fatal(err)
		}
		d, err := s.Postfix.Delivered(t.Context(), Alice)
		if err != nil {
			t.Fatal(err)
		}
		checkSigned(t, s, d, 2, 2)
		if whose, reason := s.whoseRecord(t, "<>", Alice); whose != "sign_socket" || reason != "signed" {
			t.Errorf("whose %s, reason %s", whose, reason)
		}
	})
}

// dkim2Mail is a mail of an author which has come over two hops of DKIM2.
func dkim2Mail(author string) string {
	return "DKIM2-Signature: i=2; m=2; t=1700000002; d=hop.example; s1=x:rsa-sha256:BBBB\nMessage-Instance: m=2; h=sha256:bbbb\n" +
		"Subject: a test\nDKIM2-Signature: i=1; m=1;\n\tt=1700000001; d=away.example; s1=x:rsa-sha256:AAAA\nMessage-Instance: m=1; h=sha256:aaaa\n" +
		"From: <" + author + ">\nTo: <" + Dora + ">\nMessage-ID: <1@home.example>\nDate: Thu, 26 Nov 2026 12:00:00 +0000\n\nHello.\n"
}

// dkim2Fields are those of dkim2Mail as they have to arrive.
const dkim2Fields = "i=2; m=2; t=1700000002; d=hop.example; s1=x:rsa-sha256:BBBB|m=2; h=sha256:bbbb|i=1; m=1;\r\n\tt=1700000001; d=away.example; s1=x:rsa-sha256:AAAA|m=1; h=sha256:aaaa"

func (w wayOfMail) run(t *testing.T, s *Site) {
	t.Helper()
	t.Run(w.name, func(t *testing.T) {
		d := w.pass(t, s)
		checkSigned(t, s, d, w.signed, w.good)
		whose, reason := s.whoseRecord(t, w.mail.From, Dora)
		if whose != w.whose || w.reason != "" && reason != w.reason {
			t.Errorf("whose %s, reason %s; want %s, %s", whose, reason, w.whose, w.reason)
		}
		if !strings.Contains(w.mail.Message, "DKIM2-Signature") {
			return
		}
		if got := orderedFields(string(d.Data), "DKIM2-Signature", "Message-Instance"); got != dkim2Fields {
			t.Errorf("fields of DKIM2: %q", got)
		}
		for _, signature := range d.Headers("DKIM-Signature") {
			if lower := strings.ToLower(signature); strings.Contains(lower, "dkim2") || strings.Contains(lower, "message-instance") {
				t.Errorf("signed over: %s", signature)
			}
		}
	})
}

// pass sends the mail and returns what is delivered to Dora.
func (w wayOfMail) pass(t *testing.T, s *Site) postfixtest.Delivery {
	t.Helper()
	r, err := s.submit(t.Context(), w.service, w.mail)
	if err != nil || r.Code != 250 {
		t.Fatalf("%s: %s, %v", w.service, r, err)
	}
	return toDora(t, s)
}

// orderedFields are the values of certain fields, in the order of the message.
func orderedFields(text string, names ...string) string {
	var values []string
	head, _, _ := strings.Cut(text, "\r\n\r\n")
	for field := range strings.SplitSeq(strings.ReplaceAll(head, "\r\n\t", "\x00"), "\r\n") {
		name, value, _ := strings.Cut(field, ": ")
		for _, wanted := range names {
			if strings.EqualFold(name, wanted) {
				values = append(values, strings.ReplaceAll(value, "\x00", "\r\n\t"))
			}
		}
	}
	return strings.Join(values, "|")
}

func checkSigned(t *testing.T, s *Site, d postfixtest.Delivery, all, good int) {
	t.Helper()
	if n := len(d.Headers("DKIM-Signature")); n != all {
		t.Errorf("%d signatures, want %d\n%s", n, all, d.Data)
	}
	if all == 0 {
		return
	}
	verified, found, err := VerifyDKIM(t.Context(), s.DNS, d.Data)
	if err != nil || found != all || verified != good {
		t.Errorf("%d of %d signatures verify, want %d of %d, %v\n%s", verified, found, good, all, err, d.Data)
	}
}

// whoseRecord waits for the milter's record of a mail.
func (s *Site) whoseRecord(t *testing.T, sender, recipient string) (whose, reason string) {
	t.Helper()
	r, err := s.Milterd.WaitRecord(t.Context(), func(r postfixtest.Record) bool { return r.Sender == sender && r.Recipient == recipient })
	if err != nil {
		t.Fatal(err)
	}
	return r.Whose, r.Reason
}

// comesBack has a signed mail handed back by a content filter and by a relay.
func comesBack(t *testing.T, s *Site, user postfixtest.Mail, relay string) {
	first := wayOfMail{service: postfixtest.Submission, mail: user, name: "first", whose: "sign_socket", reason: "signed", signed: 2, good: 2}
	text := string(first.pass(t, s).Data)
	s.whoseRecord(t, Alice, Dora)
	filtered := postfixtest.Mail{From: Alice, To: []string{Dora}, Message: "X-Virus-Scanned: here\r\n" + text}
	relayed := client(relay, "mx2.home.example", Alice, Dora)
	relayed.Message = text
	for _, way := range []wayOfMail{
		{"content filter, at the sign socket", "list", filtered, "sign_socket", "already_signed", 2, 2},
		{"content filter, at the verify socket", "back", filtered, "verify_socket", "", 2, 2},
		{"content filter, at a socket for both", "session", filtered, "none_of_these", "", 2, 2},
		{"sendmail(1)", Sendmail, filtered, "sign_socket", "already_signed", 2, 2},
		{"submission, again", postfixtest.Submission, postfixtest.Mail{Login: Alice, Password: password, From: Alice, To: []string{Dora}, Message: text}, "sign_socket", "already_signed", 2, 2},
		{"trusted relay", postfixtest.MX, relayed, "verify_socket", "", 2, 2},
	} {
		way.run(t, s)
	}
}

// overMailman has mails pass a list as Mailman sends them on: by SMTP from this
// machine, with List fields, another Subject and a footer, and an envelope of its own.
func overMailman(t *testing.T, s *Site, user postfixtest.Mail) {
	const bounces = "friends-bounces@home.example"
	list := func(text, from string) postfixtest.Mail {
		text = strings.Replace(text, "Subject: ", "Subject: [Friends] ", 1)
		if from != "" {
			at := strings.Index(text, "\nFrom: ") + 1
			end := at + strings.Index(text[at:], "\r\n")
			text = text[:at] + "From: " + from + text[end:]
		}
		return postfixtest.Mail{From: bounces, To: []string{Dora}, Message: fmt.Sprintf("List-Id: <friends.home.example>\r\nList-Post: <mailto:friends@home.example>\r\n%s___\r\nFriends\r\n", text)}
	}
	own := string((wayOfMail{service: postfixtest.Submission, mail: user}).pass(t, s).Data)
	s.whoseRecord(t, Alice, Dora)
	stranger := string(passOn(t, s, postfixtest.MX, authored(client("192.0.2.40", "mx.bank.example", Banker, Dora), "")).Data)
	forged := string(passOn(t, s, postfixtest.MX, forgery(Alice)).Data)
	for _, way := range []wayOfMail{
		{"a user's mail, which the list changed", "list", list(own, ""), "sign_socket", "signed", 4, 2},
		{"the list's own From", "list", list(stranger, "friends@home.example"), "sign_socket", "signed", 2, 2},
		{"a stranger's mail", "list", list(stranger, ""), "sign_socket", "no_dkim_key", 0, 0},
		{"a forgery in our name", "list", list(forged, ""), "sign_socket", "not_our_mail", 0, 0},
	} {
		way.run(t, s)
	}
}
