package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
)

// limitUser is one of many users of a site with limits, each with a login and a
// mailbox.
func limitUser(n int) string { return fmt.Sprintf("user%d@home.example", n) }

const (
	limitUsers = 13
	limitMost  = 10 // recipients of a login in an hour
)

// noEnd is a submission service that does not ask at the end of mails, by mistake.
const noEnd = "noend"

// limitSite is a site whose users may send to so many recipients.
func limitSite(t *testing.T, flags ...string) *Site {
	t.Helper()
	s := newSite(t, SiteConfig{
		Policyd: append([]string{
			"--checks", "ownership,limit,greylist", "--limit", fmt.Sprintf("login.recipients=%d/1h", limitMost), "--limit", "sender-domain.recipients=9/1h",
		}, flags...),
		Postfix: func(c *postfixtest.Config) {
			for n := range limitUsers {
				c.Users[limitUser(n)] = password
				c.Mailboxes = append(c.Mailboxes, limitUser(n))
			}
			endpoint := submissionEndpoint(c)
			c.Submission = LimitHooks(endpoint)
			c.More = append(c.More, postfixtest.Service{Name: noEnd, Login: true, Options: LimitHooks(endpoint)[:1]})
			c.MX = []string{recipientRestrictions(endpoint, "limit, greylist")}
		},
	})
	return s
}

// postern runs the administrator's command against the site's daemon.
func (s *Site) postern(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	path, err := binaries.Path(t.Context(), "postern")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, append(args, "--admin", "unix:"+filepath.Join(s.Dir, "policyd.sock"))...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil && cmd.ProcessState.ExitCode() > 1 {
		t.Fatalf("postern %q: %v: %s", args, err, &stderr)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// used is how much a value has used of its first limit.
func (s *Site) used(t *testing.T, key, value string) api.LimitUse {
	t.Helper()
	return s.uses(t, key, value)[0]
}

// uses is how much a value has used of each of its limits.
func (s *Site) uses(t *testing.T, key, value string) []api.LimitUse {
	t.Helper()
	out, _ := s.postern(t, "limits", "show", value, "--key", key, "--json")
	var shown api.LimitsShowResult
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown.Uses) == 0 {
		t.Fatalf("%v: %s", err, out)
	}
	return shown.Uses
}

func (s *Site) wantUsed(t *testing.T, login string, used int64) {
	t.Helper()
	if u := s.used(t, "login", login); u.Used != used || u.Reserved != 0 {
		t.Errorf("%s has used %d, %d of it reserved; want %d", login, u.Used, u.Reserved, used)
	}
}

// limitRecipients are different people. One who is named twice in a mail counts once,
// until its end.
func limitRecipients(n int) []string {
	all := []string{Dora, Alice, Bob}
	for i := range limitUsers {
		all = append(all, limitUser(i))
	}
	return all[:n]
}

// TestLimit sends what users and thieves send, and counts what gets through.
func TestLimit(t *testing.T) {
	t.Parallel()
	s := limitSite(t, "--limit-store", "sqlite:"+filepath.Join(t.TempDir(), "limits.db"),
		"--limit", "login.bytes=40k/1h", "--limit", "sender.messages=3/1h", "--limit-action", "defer", "--limit-action", "sender=hold",
		"--limit-overrides", "inline:{"+limitUser(8)+"=recipients=3/1h,"+limitUser(9)+"=off}")
	// The first mail also shows the daemon that Postfix asks at the end of the data: from
	// then on recipients are reserved, not counted at once.
	for n, test := range []struct {
		name string
		run  func(*testing.T, *Site, string)
	}{
		{"one recipient a mail", limitOneByOne}, {"many recipients", limitManyRecipients}, {"many mails in a session", limitManyMails},
		{"pipelined", limitPipelined}, {"parallel sessions", limitParallel}, {"recipients that are refused", limitRefused},
		{"a mail that is given up", limitGivenUp}, {"bytes", limitBytes}, {"overrides", limitOverrides},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s, limitUser(n)) })
	}
	t.Run("held", func(t *testing.T) { limitHeld(t, s) })
	t.Run("greylisted", func(t *testing.T) { limitGreylisted(t, s) })
	t.Run("a service without the hook at the end", func(t *testing.T) { limitNoEnd(t, s, limitUser(12)) })
}

// A login is blocked where Postfix asks for ownership only, as setup attaches it where
// there are no limits. The session that is open is stopped too.
func TestBlockWithoutLimits(t *testing.T) {
	t.Parallel()
	s := newSite(t, SiteConfig{Policyd: []string{"--limit-store", "memory:"}})
	m := As(Alice, Alice, Dora)
	expect(t, s, postfixtest.Submission, m, 250)
	session := open(t, s, Alice)
	s.postern(t, "limits", "block", Alice)
	expect(t, s, postfixtest.Submission, m, 554)
	expect(t, s, postfixtest.Submission, As(Bob, Bob, Dora), 250)
	replies, err := session.Pipeline("MAIL FROM:<"+Alice+">", "RCPT TO:<"+Dora+">")
	if err != nil || replies[1].Code != 554 || !strings.Contains(replies[1].Lines[0], "This account may not send mail at the moment") {
		t.Errorf("%v, %v", replies, err)
	}
	s.postern(t, "limits", "unblock", Alice)
	expect(t, s, postfixtest.Submission, m, 250)
}

func limitOneByOne(t *testing.T, s *Site, login string) {
	m := As(login, "", Dora)
	for range limitMost {
		expect(t, s, postfixtest.Submission, m, 250)
	}
	reply := send(t, s, postfixtest.Submission, m)
	if reply.Code != 450 || !strings.HasPrefix(reply.Lines[0], "4.7.1 <") || !strings.Contains(reply.Lines[0], "Limit of 10 recipients in 1h reached for this account, try again in 61 min") {
		t.Errorf("%s", reply)
	}
	r, err := s.Policyd.WaitRecord(t.Context(), func(r postfixtest.Record) bool {
		return r.SASLUsername == login && r.Verdict == "defer"
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Check != "limit" || r.Reason != string(record.LimitRecipients) || !strings.Contains(r.Raw, "used=10 login="+login) {
		t.Errorf("%s", r.Raw)
	}
	if _, err := s.Policyd.WaitLine(t.Context(), func(r postfixtest.Record) bool {
		return r.Message == "alarm" && strings.Contains(r.Raw, login) && strings.Contains(r.Raw, `"percent":100`) && strings.Contains(r.Raw, `"recipient_domains":["home.example"]`)
	}); err != nil {
		t.Error(err)
	}
	s.wantUsed(t, login, limitMost)
	// The way out: lifted, and sent again.
	if out, code := s.postern(t, "limits", "show", login); code != 1 || !strings.Contains(out, "reached: defer") {
		t.Errorf("exit %d: %s", code, out)
	}
	s.postern(t, "limits", "reset", login)
	expect(t, s, postfixtest.Submission, m, 250)
	s.postern(t, "limits", "block", login, "1h")
	if reply := send(t, s, postfixtest.Submission, m); reply.Code != 554 {
		t.Errorf("blocked: %s", reply)
	}
	if out, _ := s.postern(t, "limits", "list"); !strings.Contains(out, login+" is blocked since") {
		t.Errorf("%s", out)
	}
	s.postern(t, "limits", "unblock", login)
	expect(t, s, postfixtest.Submission, m, 250)
}

// limitNoEnd sends on a service whose hook at the end is missing, while another has it.
func limitNoEnd(t *testing.T, s *Site, login string) {
	for range limitMost {
		expect(t, s, noEnd, As(login, "", Dora), 250)
	}
	s.wantUsed(t, login, limitMost)
	expect(t, s, noEnd, As(login, "", Dora), 450)
}

func limitManyRecipients(t *testing.T, s *Site, login string) {
	m := As(login, "", limitRecipients(4)...)
	expect(t, s, postfixtest.Submission, m, 250)
	expect(t, s, postfixtest.Submission, m, 250)
	r, err := s.Postfix.Send(t.Context(), postfixtest.Submission, m)
	if err != nil {
		t.Fatal(err)
	}
	// The mail goes to those who are let through.
	if !r.Rcpt[1].OK() || r.Rcpt[2].Code != 450 || r.Rcpt[3].Code != 450 || !r.Data.OK() {
		t.Errorf("%v, %v", r.Rcpt, r.Data)
	}
	s.wantUsed(t, login, limitMost)
}

func limitManyMails(t *testing.T, s *Site, login string) {
	c := open(t, s, login)
	for i := range limitMost + 3 {
		reply := transact(t, c, As(login, "", Dora))
		if (reply.Code == 250) != (i < limitMost) {
			t.Errorf("mail %d: %s", i, reply)
		}
	}
	s.wantUsed(t, login, limitMost)
}

func limitPipelined(t *testing.T, s *Site, login string) {
	c := open(t, s, login)
	commands := []string{"MAIL FROM:<>"}
	for _, to := range limitRecipients(limitMost + 5) {
		commands = append(commands, "RCPT TO:<"+to+">")
	}
	replies, err := c.Pipeline(commands...)
	if err != nil {
		t.Fatal(err)
	}
	accepted := 0
	for _, r := range replies[1:] {
		if r.OK() {
			accepted++
		}
	}
	if accepted != limitMost {
		t.Errorf("%d recipients were accepted", accepted)
	}
	if reply, err := c.Data("Subject: many\n\nHello.\n"); err != nil || !reply.OK() {
		t.Errorf("%v, %v", reply, err)
	}
	s.wantUsed(t, login, limitMost)
}

// limitParallel has sessions name their recipients before any of them sends its mail.
func limitParallel(t *testing.T, s *Site, login string) {
	const sessions = 25
	var accepted atomic.Int64
	var named, done sync.WaitGroup
	named.Add(sessions)
	for range sessions {
		c := open(t, s, login)
		done.Go(func() {
			ok := false
			if r, err := c.Mail(""); err != nil || !r.OK() {
				t.Errorf("%v, %v", r, err)
			} else if r, err := c.Rcpt(Dora); err != nil {
				t.Error(err)
			} else {
				ok = r.OK()
			}
			named.Done()
			named.Wait()
			if !ok {
				return
			}
			if r, err := c.Data("Subject: one\n\nHello.\n"); err != nil || !r.OK() {
				t.Errorf("%v, %v", r, err)
			}
			accepted.Add(1)
		})
	}
	done.Wait()
	if n := accepted.Load(); n != limitMost {
		t.Errorf("%d mails got through", n)
	}
	s.wantUsed(t, login, limitMost)
}

// Recipients that Postfix refuses after the check has passed them cost nothing.
func limitRefused(t *testing.T, s *Site, login string) {
	c := open(t, s, login)
	if r, err := c.Mail(""); err != nil || !r.OK() {
		t.Fatalf("%v, %v", r, err)
	}
	refused := 0
	for _, to := range []string{"no-one@home.example", Dora, "nobody@home.example", "else@home.example"} {
		r, err := c.Rcpt(to)
		if err != nil {
			t.Fatal(err)
		}
		if r.Code == 550 {
			refused++
		}
	}
	if r, err := c.Data("Subject: x\n\nHello.\n"); err != nil || !r.OK() || refused != 3 {
		t.Fatalf("%v, %v, %d refused", r, err, refused)
	}
	s.wantUsed(t, login, 1)
	if reply := send(t, s, postfixtest.Submission, As(login, Bob, Dora)); reply.Code != 553 {
		t.Errorf("a sender of another: %s", reply)
	}
	s.wantUsed(t, login, 1)
}

// A mail that is given up keeps its reservation for a while, and no more.
func limitGivenUp(t *testing.T, s *Site, login string) {
	c := open(t, s, login)
	for range 3 {
		if r, err := c.Mail(""); err != nil || !r.OK() {
			t.Fatalf("%v, %v", r, err)
		}
		if r, err := c.Rcpt(Dora); err != nil || !r.OK() {
			t.Fatalf("%v, %v", r, err)
		}
		if err := c.Reset(); err != nil {
			t.Fatal(err)
		}
	}
	if u := s.used(t, "login", login); u.Used != 3 || u.Reserved != 3 {
		t.Errorf("%+v", u)
	}
}

func limitBytes(t *testing.T, s *Site, login string) {
	m := As(login, "", Dora)
	m.Message = "Subject: big\n\n" + strings.Repeat(strings.Repeat("x", 70)+"\n", 250)
	expect(t, s, postfixtest.Submission, m, 250)
	expect(t, s, postfixtest.Submission, m, 250)
	r, err := s.Postfix.Send(t.Context(), postfixtest.Submission, m)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Rcpt[0].OK() || r.Data.Code != 450 || !strings.Contains(r.Data.String(), "Limit of 40000 bytes in 1h") {
		t.Errorf("%v, %v", r.Rcpt, r.Data)
	}
	s.wantUsed(t, login, 2) // the recipient of what was refused costs nothing
	expect(t, s, postfixtest.Submission, As(login, "", Dora), 250)
}

func limitOverrides(t *testing.T, s *Site, login string) {
	r, err := s.Postfix.Send(t.Context(), postfixtest.Submission, As(login, "", limitRecipients(5)...))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Rcpt[2].OK() || r.Rcpt[3].Code != 450 {
		t.Errorf("%v", r.Rcpt)
	}
	if out, _ := s.postern(t, "limits", "show", login); !strings.Contains(out, "recipients=3/1h") || !strings.Contains(out, "from inline:") {
		t.Errorf("%s", out)
	}
	expect(t, s, postfixtest.Submission, As(limitUser(9), "", limitRecipients(15)...), 250)
}

// limitHeld shows that Postfix holds the whole mail.
func limitHeld(t *testing.T, s *Site) {
	login := limitUser(10)
	m := As(login, login, Dora, Alice)
	for range 3 {
		expect(t, s, postfixtest.Submission, m, 250)
	}
	expect(t, s, postfixtest.Submission, m, 250)
	if _, err := s.Postfix.WaitLog(t.Context(), func(line string) bool {
		return strings.Contains(line, "NOQUEUE: hold:") || strings.Contains(line, ": hold:") && strings.Contains(line, "Limit of 3 messages in 1h reached for this sender")
	}); err != nil {
		t.Error(err)
	}
	r, err := s.Policyd.WaitRecord(t.Context(), func(r postfixtest.Record) bool { return r.Verdict == "hold" })
	if err != nil || r.Reason != string(record.LimitMessages) || !strings.HasPrefix(r.Action, "HOLD Limit of 3") {
		t.Errorf("%v: %s", err, r.Raw)
	}
}

// limitGreylisted shows that a recipient who has to come back has not counted.
func limitGreylisted(t *testing.T, s *Site) {
	for i := range 12 {
		m := fromOutside(fmt.Sprintf("s%d@away.example", i), Alice)
		m.Client = "198.51.100.9"
		if reply := send(t, s, postfixtest.MX, m); reply.Code != 450 || !strings.Contains(reply.String(), "Greylisted") {
			t.Fatalf("mail %d: %s", i, reply)
		}
	}
	if u := s.used(t, "sender-domain", "away.example"); u.Used != 0 {
		t.Errorf("%+v", u)
	}
}

// TestLimitStory is what "make try" shows.
func TestLimitStory(t *testing.T) {
	t.Parallel()
	_, wrong, err := LimitStory(t.Context(), newSite(t, WithLimits(SiteConfig{})))
	if err := errors.Join(wrong, err); err != nil {
		t.Error(err)
	}
}

// TestLimitRestart shows that a daemon that is killed forgets at most a second, and that
// mail under way is judged at its end.
func TestLimitRestart(t *testing.T) {
	t.Parallel()
	store := filepath.Join(t.TempDir(), "limits.db")
	s := limitSite(t, "--limit-store", "sqlite:"+store)
	login := limitUser(0)
	expect(t, s, postfixtest.Submission, As(login, "", limitRecipients(6)...), 250)
	c := open(t, s, login)
	if r, err := c.Mail(""); err != nil || !r.OK() {
		t.Fatalf("%v, %v", r, err)
	}
	if r, err := c.Rcpt(Dora); err != nil || !r.OK() {
		t.Fatalf("%v, %v", r, err)
	}
	if err := s.Policyd.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.StartPolicyd(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantUsed(t, login, 6)
	if r, err := c.Data("Subject: x\n\nHello.\n"); err != nil || !r.OK() {
		t.Fatalf("%v, %v", r, err)
	}
	s.wantUsed(t, login, 7)
	if info, err := os.Stat(store); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("%v, %v", info, err)
	}
}
