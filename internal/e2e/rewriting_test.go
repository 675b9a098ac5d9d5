package e2e

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// Postfix rewrites addresses and header fields before it gives mail to a milter, so that
// signatures hold; what it changes on the way out, or behind a content filter, breaks
// them. SIGNING.md and doctor say which setting does what.
func TestRewrittenMail(t *testing.T) {
	t.Parallel()
	receiver := postfixtest.New(t, postfixtest.Config{Main: []string{"local_header_rewrite_clients ="}})
	local := "local_header_rewrite_clients=permit_sasl_authenticated"
	s := newSigningSite(t, SiteConfig{Postfix: func(c *postfixtest.Config) {
		c.Main = append(c.Main, "virtual_transport = smtp:"+inBrackets(receiver.Addr(postfixtest.MX)), "myorigin = home.example", "mydomain = home.example", "append_dot_mydomain = yes",
			"canonical_maps = inline:{{alice@old.example=alice@home.example}}", "sender_canonical_maps = inline:{{press@home.example=The.Press@home.example}}",
			"masquerade_domains = home.example", "header_checks = regexp:{{/^Subject: before/ REPLACE Subject: cleaned up}}",
			"smtp_generic_maps = inline:{{team@home.example=team@isp.example}}", "smtp_header_checks = regexp:{{/^Subject: later/ REPLACE Subject: changed}}")
		noMilters := "receive_override_options=no_milters"
		c.More = []postfixtest.Service{
			{Name: "here", Login: true, Options: append(c.Submission, local)},
			{Name: "elsewhere", Login: true, Options: append(c.Submission, "local_header_rewrite_clients=")},
			{Name: "back", Options: []string{noMilters, "local_header_rewrite_clients=permit_inet_interfaces"}},
			{Name: "backquietly", Options: []string{noMilters, "local_header_rewrite_clients="}},
		}
	}})
	arrives := func(service string, m postfixtest.Mail, good int) string {
		t.Helper()
		if r := send(t, s, service, m); r.Code != 250 {
			t.Fatalf("%s: %s", service, r)
		}
		d, err := receiver.Delivered(t.Context(), Dora)
		if err != nil {
			t.Fatal(err)
		}
		if found, all, err := VerifyDKIM(t.Context(), s.DNS, d.Data); err != nil || found != good || all != 2 {
			t.Errorf("%s: %d of %d signatures verify, want %d of 2, %v\n%s", service, found, all, good, err, d.Data)
		}
		return string(d.Data)
	}
	mail := func(from, subject, to string) postfixtest.Mail {
		m := As(Alice, Alice, Dora)
		m.Message = "From: " + from + "\nTo: " + to + "\nSubject: " + subject + "\nReply-To: bob\n\nHello.\n"
		return m
	}
	text := arrives("here", mail("alice@old.example", "before", "root, x@pc, y@host.home.example"), 2)
	for _, want := range []string{"From: alice@home.example\r\n", "Subject: cleaned up\r\n", "To: root@home.example, x@home.example, y@home.example\r\n", "Reply-To: bob@home.example\r\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	arrives("here", mail(Alice, "x", "team@home.example"), 0)
	arrives("here", mail(Alice, "later", Dora), 0)

	back := func(text string) postfixtest.Mail {
		return postfixtest.Mail{From: Press, To: []string{Dora}, Message: "X-Virus-Scanned: here\r\n" + text}
	}
	asPress := func(service string) string {
		m := mail(Press, "x", Dora)
		m.Message = strings.ReplaceAll(m.Message, "Reply-To: bob\n", "")
		return arrives(service, m, 2)
	}
	arrives("back", back(asPress("elsewhere")), 0)
	if text := arrives("backquietly", back(asPress("here")), 2); !strings.Contains(text, "From: The.Press@home.example\r\n") {
		t.Errorf("not rewritten before it was signed:\n%s", text)
	}
}

// inBrackets returns host:port as Postfix spells a next hop without MX lookups.
func inBrackets(addr string) string {
	host, port, _ := strings.Cut(addr, ":")
	return "[" + host + "]:" + port
}
