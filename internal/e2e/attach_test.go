package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
)

// TestTransactions asserts that each transaction of a session is judged anew,
// over the one connection that smtpd keeps.
func TestTransactions(t *testing.T) {
	t.Parallel()
	s := newSite(t, SiteConfig{})
	c := open(t, s, Alice)
	for _, step := range []struct {
		from string
		code int
	}{{Bob, 553}, {Alice, 250}, {Bob, 553}, {Press, 250}} {
		if got := transact(t, c, As(Alice, step.from, Dora)); got.Code != step.code {
			t.Errorf("from %s: %s, want %d", step.from, got, step.code)
		}
	}
	// RSET in the middle: what came before it has no part in what follows.
	for _, from := range []string{Bob, Alice} {
		replies, err := c.Pipeline("MAIL FROM:<"+from+">", "RCPT TO:<"+Dora+">", "RSET")
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]int{Bob: 553, Alice: 250}[from]; replies[1].Code != want {
			t.Errorf("RCPT after MAIL from %s: %s, want %d", from, replies[1], want)
		}
	}
	instances := map[string]bool{}
	for range 6 {
		r, err := s.Policyd.WaitRecord(t.Context(), func(r postfixtest.Record) bool { return r.SASLUsername == Alice })
		if err != nil {
			t.Fatal(err)
		}
		instances[r.Instance] = true
	}
	if len(instances) != 6 {
		t.Errorf("6 transactions have the instances %v", instances)
	}
}

func TestTwoRecipients(t *testing.T) {
	t.Parallel()
	s := newSite(t, SiteConfig{})
	for _, test := range []struct {
		from string
		code int
	}{{Alice, 250}, {Bob, 553}} {
		r, err := s.Postfix.Send(t.Context(), postfixtest.Submission, As(Alice, test.from, Dora, Stranger))
		if err != nil {
			t.Fatal(err)
		}
		var instances []string
		for i, to := range []string{Dora, Stranger} {
			if r.Rcpt[i].Code != test.code {
				t.Errorf("from %s to %s: %s, want %d", test.from, to, r.Rcpt[i], test.code)
			}
			rec, err := s.Record(t.Context(), As(Alice, test.from, to))
			if err != nil {
				t.Fatal(err)
			}
			instances = append(instances, rec.Instance)
		}
		if instances[0] == "" || instances[0] != instances[1] {
			t.Errorf("from %s: one transaction has the instances %q", test.from, instances)
		}
	}
}

// TestHooks asserts which checks run for a policy_context, and for a socket. A
// comma ends an attribute for Postfix: several checks need braces of their own.
func TestHooks(t *testing.T) {
	t.Parallel()
	bound, err := postfixtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	hook := func(name, endpoint, attributes string) postfixtest.Service {
		return postfixtest.Service{Name: name, Login: true, Options: []string{"smtpd_sender_restrictions=" + CheckPolicy(endpoint, attributes)}}
	}
	var main string
	c := SiteConfig{
		Policyd: []string{"--listen", "inet:" + bound + "=ownership", "--listen", "unix:postern/policyd.sock", "--socket-group", "postfix"},
		Postfix: func(c *postfixtest.Config) {
			c.More = []postfixtest.Service{
				hook("named", main, "policy_context=ownership"),
				hook("empty", main, ""),
				hook("unknown", main, "policy_context=ownershit"),
				hook("several", main, "{ policy_context = ownership, ownership }"),
				hook("partly", main, "{ policy_context = ownership, weather }"),
				hook("bound", "inet:"+bound, ""),
				hook("relative", "unix:postern/policyd.sock", ""),
			}
		},
	}
	// The endpoint is known once the site has chosen it.
	start := c.Postfix
	var s *Site
	c.Postfix = func(pc *postfixtest.Config) {
		_, options, _ := strings.Cut(pc.Submission[0], "{ ")
		main, _, _ = strings.Cut(options, ",")
		start(pc)
	}
	s = newSite(t, c)
	tests := []struct {
		service string
		code    int
		reason  record.Reason
	}{
		{"named", 553, record.OwnerNotOwned},
		{"empty", 553, record.OwnerNotOwned},
		{"unknown", 451, record.UnknownHook}, // it was meant to be ownership
		{"several", 553, record.OwnerNotOwned},
		{"partly", 553, record.OwnerNotOwned}, // what is known is asked
		{"bound", 553, record.OwnerNotOwned},
		{"relative", 553, record.OwnerNotOwned},
	}
	for _, test := range tests {
		t.Run(test.service, func(t *testing.T) {
			m := As(Alice, Bob, Dora)
			expect(t, s, test.service, m, test.code)
			r, err := s.Record(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			if r.Reason != string(test.reason) {
				t.Errorf("reason %s, want %s", r.Reason, test.reason)
			}
		})
	}
}

// TestRestart stops the daemon under an open SMTP session: smtpd finds its
// connection closed and dials again.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := newSite(t, SiteConfig{})
	c := open(t, s, Alice)
	for range 2 {
		if got := transact(t, c, As(Alice, Bob, Dora)); got.Code != 553 {
			t.Errorf("foreign sender: %s", got)
		}
		if got := transact(t, c, As(Alice, Alice, Dora)); got.Code != 250 {
			t.Errorf("own sender: %s", got)
		}
		if err := s.Policyd.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := s.StartPolicyd(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDaemonGone asserts what each hook does while the daemon is away, as after
// a crash: submission fails closed, the MX hook passes by its default_action.
func TestDaemonGone(t *testing.T) {
	t.Parallel()
	s := newSite(t, SiteConfig{})
	s.Policyd.Kill()
	if got := send(t, s, postfixtest.Submission, As(Alice, Alice, Dora)); got.Code != 451 || !strings.HasPrefix(got.Lines[0], "4.3.5") {
		t.Errorf("submission: %s, want 451 4.3.5", got)
	}
	expect(t, s, postfixtest.MX, fromOutside(Stranger, Alice), 250)
	if err := s.StartPolicyd(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, s, postfixtest.Submission, As(Alice, Alice, Dora), 250)
	expect(t, s, postfixtest.Submission, As(Alice, Bob, Dora), 553)
}

// TestDrain asserts that SIGTERM closes idle connections at once: a stop with
// open SMTP sessions ends with exit code 0.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := newSite(t, SiteConfig{})
	for range 5 {
		c := open(t, s, Alice)
		if got := transact(t, c, As(Alice, Alice, Dora)); got.Code != 250 {
			t.Fatalf("own sender: %s", got)
		}
	}
	if err := s.Policyd.Stop(); err != nil {
		t.Error(err)
	}
}

// restarts are enough to hit a session in every phase.
const restarts = 4

// TestSocketActivation restarts the daemon while mail comes in. The sockets stay
// open as systemd keeps them, so that every mail gets its right answer: a
// session that the restart hits dials again, and finds the next daemon.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	endpoint := "inet:" + listener.Addr().String()
	s := newSite(t, SiteConfig{
		Files:   []*os.File{file},
		Policyd: []string{"--listen", "systemd"},
		Postfix: func(c *postfixtest.Config) { c.Submission = []string{senderRestrictions(endpoint)} },
	})
	answers := map[string]int{Alice: 250, Bob: 553, Press: 250}
	stop := make(chan struct{})
	done := make(chan error, len(answers))
	for from, code := range answers {
		go func() { done <- sendUntil(t.Context(), stop, s, As(Alice, from, Dora), code) }()
	}
	for range restarts {
		// Each sender has an answer from this daemon before it goes: Postfix
		// dials again once for a request, not twice.
		for from := range answers {
			if _, err := s.Record(t.Context(), As(Alice, from, Dora)); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Policyd.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := s.StartPolicyd(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	for range answers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// sendUntil sends m again and again, and returns the first answer that is not
// the right one.
func sendUntil(ctx context.Context, stop <-chan struct{}, s *Site, m postfixtest.Mail, code int) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		r, err := s.Postfix.Send(ctx, postfixtest.Submission, m)
		if err != nil {
			return err
		}
		if got := r.Final(); got.Code != code {
			return &postfixtest.ReplyError{Command: "mail from " + m.From, Reply: got}
		}
	}
}

// TestBadSettings asserts exit code 78, or 75 for what can pass by itself, one line on standard error, the name of
// what to fix, and that nothing was half-started.
func TestBadSettings(t *testing.T) {
	t.Parallel()
	s := newSite(t, SiteConfig{})
	broken := filepath.Join(s.Dir, "broken")
	replaceFile(t, broken, "# fine\nalice@home.example alice\nno-value-here\n")
	toml := filepath.Join(s.Dir, "broken.toml")
	replaceFile(t, toml, "checks = [\"ownership\"]\nowner = [\"hash:/x\"]\n")
	tests := []struct {
		name   string
		args   []string
		status int
		want   []string
	}{
		{"missing map", []string{"--owners", "hash:" + s.Dir + "/nothing"}, 78, []string{s.Dir + "/nothing"}},
		{"broken map", []string{"--owners", "hash:" + broken}, 78, []string{broken + ":3"}},
		{"unknown map type", []string{"--owners", "nis:" + broken}, 78, []string{"nis"}},
		{"unknown flag", []string{"--ovners", "x"}, 78, []string{"ovners"}},
		{"unknown key", []string{"--config", toml}, 78, []string{toml + ":2", "owner"}},
		{"address in use", []string{"--listen", s.Endpoint()}, 75, []string{s.PolicyAddr}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, err := s.PolicydConfig(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			free, err := postfixtest.FreeAddr()
			if err != nil {
				t.Fatal(err)
			}
			c.Args = slices.Concat(withoutListener(c.Args), []string{"--admin", "unix:" + s.Dir + "/second.sock", "--listen", "inet:" + free}, test.args)
			d, err := postfixtest.StartDaemon(t.Context(), c)
			if err == nil {
				t.Fatal("started", d.Stop())
			}
			text := err.Error()
			if want := fmt.Sprintf("exit status %d", test.status); !strings.Contains(text, want) {
				t.Errorf("not %s: %s", want, text)
			}
			_, printed, _ := strings.Cut(text, "\n")
			if lines := strings.Split(strings.TrimSpace(printed), "\n"); len(lines) != 1 {
				t.Errorf("%d lines instead of one: %q", len(lines), lines)
			}
			for _, want := range test.want {
				if !strings.Contains(printed, want) {
					t.Errorf("%q does not name %q", printed, want)
				}
			}
		})
	}
}

// withoutListener leaves out the --listen and --admin of the daemon that runs.
func withoutListener(args []string) []string {
	var kept []string
	for i := 0; i < len(args); i += 2 {
		if args[i] != "--listen" && args[i] != "--admin" {
			kept = append(kept, args[i], args[i+1])
		}
	}
	return kept
}
