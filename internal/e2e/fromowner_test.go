package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
)

func TestFromCases(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{Postfix: func(c *postfixtest.Config) {
		c.Main = append(c.Main, "local_header_rewrite_clients =")
	}})
	for _, c := range FromCases() {
		t.Run(c.Name, func(t *testing.T) {
			o, err := c.Run(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if o.Wrong != nil {
				t.Error(o.Wrong)
			}
		})
	}
	t.Run("shadow", func(t *testing.T) { checkFromShadow(t, s) })
	t.Run("tables away", func(t *testing.T) { checkFromTablesAway(t, s) })
}

// checkFromTablesAway has the tables live in a server that is not there.
func checkFromTablesAway(t *testing.T, s *Site) {
	for _, tt := range []struct {
		rule string
		code int
	}{{"defer", 451}, {"pass", 250}} {
		flags := []string{"--from-ownership=enforce", "--owners=socketmap:inet:" + noDNS + ":owners", "--owners-on-error=" + tt.rule}
		if err := s.milterdWith(t.Context(), flags); err != nil {
			t.Fatal(err)
		}
		m := withHeader(Alice, "From: Bob <"+Bob+">")
		if r := send(t, s, postfixtest.Submission, m); r.Code != tt.code {
			t.Errorf("--owners-on-error=%s: %s", tt.rule, r)
		}
		r, err := s.Milterd.WaitRecord(t.Context(), func(r postfixtest.Record) bool { return r.Recipient == Dora })
		if err != nil {
			t.Fatal(err)
		}
		if r.Step(fromCheck).Reason != string(record.OwnerLookupFailed) || r.Level != "warn" || !strings.Contains(r.Error, "socketmap:") {
			t.Errorf("--owners-on-error=%s: record %s", tt.rule, r.Raw)
		}
		// Who has not logged in is not asked about.
		if r := send(t, s, postfixtest.MX, fromOutside(Stranger, Dora)); r.Code != 250 {
			t.Errorf("a stranger: %s", r)
		}
	}
}

// checkFromShadow has a refusal recorded only, and the postern command asked why.
func checkFromShadow(t *testing.T, s *Site) {
	flags := []string{"--from-ownership=shadow", "--owners=hash:" + s.OwnersPath()}
	if err := s.milterdWith(t.Context(), flags); err != nil {
		t.Fatal(err)
	}
	m := withHeader(Alice, "From: Bob <"+Bob+">")
	if r := send(t, s, postfixtest.Submission, m); r.Code != 250 {
		t.Error(r)
	}
	r, err := s.SignRecord(t.Context(), Alice, Dora)
	if err != nil {
		t.Fatal(err)
	}
	step := r.Step(fromCheck)
	if step.Verdict != "reject" || step.Mode != "shadow" || step.Reason != string(record.FromNotOwned) || r.Reason != string(record.Signed) {
		t.Errorf("record %s", r.Raw)
	}
	file := s.Dir + "/from.eml"
	if err := os.WriteFile(file, []byte(m.Message), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := s.Postern(t.Context(), "owners", "check", "--admin", s.Dir+"/milterd.sock", "--header", file, Alice)
	if err == nil || !strings.HasPrefix(out, "no: "+Alice+" may not send "+file+" (from_not_owned)\n  field   From\n  address "+Bob+"\n") || !strings.Contains(out, "shadowed") {
		t.Errorf("owners check: %v, %s", err, out)
	}
	if out, err := s.Postern(t.Context(), "owners", "check", "--admin", s.Dir+"/milterd.sock", "--header", file, Bob); err != nil || !strings.HasPrefix(out, "yes: ") {
		t.Errorf("owners check: %v, %s", err, out)
	}
}

// TestFromAgainstPostfix puts each of the addresses that Postfix's own
// reject_sender_login_mismatch judges as envelope senders into From: what Postfix
// refuses there is never let through here. What is plain and owned passes both.
func TestFromAgainstPostfix(t *testing.T) {
	t.Parallel()
	for name, setting := range map[string]struct {
		clients string // whose header Postfix completes before it asks us
		every   int    // one address of so many is sent: all of them take a minute
	}{
		"remote clients": {"", 5},
		"local clients":  {"permit_inet_interfaces", 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFromSite(t, setting.clients)
			var senders []string
			for i, sender := range generatedSenders() {
				if i%setting.every == 0 {
					senders = append(senders, sender)
				}
			}
			senders = append(senders, "alice@home.example", "any@owned.example", "any+tag@owned.example", "x@local.example")
			wants := newAsker(t, s, native).ask(t, senders...)
			ours := newAsker(t, s, postfixtest.Submission)
			stricter := 0
			for i, sender := range senders {
				want, got := wants[i], sendFrom(t, ours, sender)
				switch {
				case !want.OK() && got.OK() && !strings.Contains(sender, "("): // a comment here, an error there
					t.Errorf("From: %s: as a sender, Postfix says %s; we let it through", sender, want)
				case want.OK() && !got.OK():
					stricter++
					if i >= len(senders)-4 {
						t.Errorf("From: %s, which is owned: %s", sender, got)
					}
				}
			}
			t.Logf("%d addresses: only we refuse %d", len(senders), stricter)
		})
	}
}

// newFromSite has Postfix and postern-milterd read the same tables.
func newFromSite(t *testing.T, rewrite string) *Site {
	t.Helper()
	dir, err := postfixtest.MakeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	logins := dir + "/logins"
	if err := os.WriteFile(logins, []byte(loginMap), 0o644); err != nil {
		t.Fatal(err)
	}
	limits := []string{"smtpd_hard_error_limit=100000", "smtpd_soft_error_limit=100000", "smtpd_error_sleep_time=0", "smtpd_junk_command_limit=100000"}
	return newSigningSite(t, SiteConfig{
		Dir: dir,
		Milterd: []string{"--from-ownership=enforce", "--owners=texthash:" + dir + "/owners", "--owners=texthash:" + logins, "--owner-self=false",
			"--local-domains=local.example", "--myorigin=local.example"},
		Postfix: func(c *postfixtest.Config) {
			c.Main = append(c.Main, "mydestination = local.example", "myorigin = local.example", "local_header_rewrite_clients = "+rewrite,
				"smtpd_sender_login_maps = texthash:"+dir+"/owners, texthash:"+logins)
			c.Submission = append(c.Submission, limits...)
			c.More = append(c.More, postfixtest.Service{Name: native, Login: true, Options: append(slices.Clone(limits), "smtpd_sender_restrictions=reject_sender_login_mismatch")})
		},
	})
}

// sendFrom sends a mail of alice's with an address in From.
func sendFrom(t *testing.T, a asker, from string) postfixtest.Reply {
	t.Helper()
	for _, command := range []string{"RSET", "MAIL FROM:<" + Alice + ">", "RCPT TO:<" + Dora + ">"} {
		if r, err := a.Cmd("%s", command); err != nil || !r.OK() {
			t.Fatalf("%s: %s, %v", command, r, err)
		}
	}
	r, err := a.Data(fmt.Sprintf("From: %s\nTo: <%s>\nSubject: x\n\nx\n", from, Dora))
	if err != nil {
		t.Fatal(err)
	}
	return r
}
