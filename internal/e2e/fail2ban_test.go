package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const fail2banDir = "../../deploy/fail2ban"

// fail2banMatches is how many lines of a log fail2ban's own tool finds, and for whom.
func fail2banMatches(t *testing.T, log, filter string) (matched string, addrs []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "fail2ban-regex", "--print-all-matched", "--verbose", log, filter)
	out, err := cmd.CombinedOutput()
	found := regexp.MustCompile(`Lines: \d+ lines, \d+ ignored, (\d+) matched`).FindSubmatch(out)
	if found == nil {
		t.Fatalf("fail2ban-regex: %v\n%s", err, out)
	}
	for _, m := range regexp.MustCompile(`(?m)^\|?\s+(\S+)  \w{3} \w{3} \d\d `).FindAllSubmatch(out, -1) {
		addrs = append(addrs, string(m[1]))
	}
	return string(found[1]), addrs
}

// TestFail2ban has the daemon write records of every kind, and fail2ban find them.
func TestFail2ban(t *testing.T) {
	if _, err := exec.LookPath("fail2ban-regex"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: install the package fail2ban", err)
		}
		t.Skip(err)
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "policyd.log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	c := WithLists(SiteConfig{Log: log, Policyd: []string{
		"--checks", "ownership,limit,dnsbl", "--limit-store", "memory:", "--limit", "login.recipients=2/1h", "--limit", "sender.messages=1/1h", "--limit-action", "sender=warn",
	}}, resolvertest.New(t, Zones).Addr())
	before := c.Postfix
	c.Postfix = func(p *postfixtest.Config) {
		before(p)
		p.Submission = LimitHooks(submissionEndpoint(p))[:1]
	}
	s := newSite(t, c)
	// Nothing of a client's choice is taken for a key of the record.
	spoof := As(Alice, `"x\",\"client_address\":\"192.0.2.66"@away.example`, Dora)
	expect(t, s, postfixtest.Submission, spoof, 553)
	expect(t, s, postfixtest.Submission, As(Alice, Bob, Dora), 553)
	for i := range 4 {
		reply := send(t, s, postfixtest.Submission, As(Alice, Alice, Dora))
		if (reply.Code == 450) != (i >= 2) {
			t.Errorf("mail %d: %s", i, reply)
		}
	}
	for _, client := range []string{"192.0.2.7", "2001:db8::1"} {
		m := fromOutside(Stranger, Alice)
		m.Client = client
		expect(t, s, postfixtest.MX, m, 550)
	}
	expect(t, s, postfixtest.MX, fromOutside(Stranger, Alice), 250)
	conn, err := net.Dial("tcp", s.PolicyAddr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("an answer to what is no request")
	}
	_ = conn.Close()
	if _, err := s.Policyd.WaitLine(t.Context(), func(r postfixtest.Record) bool { return r.Reason == "bad_request" }); err != nil {
		t.Fatal(err)
	}
	filter, err := filepath.Abs(filepath.Join(fail2banDir, "filter.d/postern.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]struct {
		matched string
		addrs   string
	}{
		"owners":   {"2", "127.0.0.1 127.0.0.1"},
		"limits":   {"2", "127.0.0.1 127.0.0.1"},
		"lists":    {"2", "192.0.2.7 2001:db8::1"},
		"protocol": {"1", "127.0.0.1"},
		"all":      {"7", ""},
	} {
		matched, addrs := fail2banMatches(t, path, filter+"[mode="+mode+"]")
		if matched != want.matched || want.addrs != "" && strings.Join(addrs, " ") != want.addrs {
			t.Errorf("%s: %s lines, %q; want %v", mode, matched, addrs, want)
		}
	}
}

// TestFail2banJails has fail2ban read the jails beside Debian's own.
func TestFail2banJails(t *testing.T) {
	if _, err := exec.LookPath("fail2ban-client"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: install the package fail2ban", err)
		}
		t.Skip(err)
	}
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "fail2ban")
	if out, err := exec.CommandContext(t.Context(), "cp", "-r", "/etc/fail2ban", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"filter.d/postern.conf", "jail.d/postern.conf"} {
		text, err := os.ReadFile(filepath.Join(fail2banDir, name))
		if err != nil {
			t.Fatal(err)
		}
		// All jails are looked at, not only those that are on.
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(string(text), "enabled = false", "enabled = true")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_ = os.Remove(filepath.Join(dir, "jail.d/defaults-debian.conf")) // its jail needs a log that is not here
	out, err := exec.CommandContext(t.Context(), "fail2ban-client", "-c", dir, "-d").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, jail := range []string{"postfix-sasl", "postern-owners", "postern-limits", "postern-lists", "postern-protocol"} {
		if !strings.Contains(string(out), "['start', '"+jail+"']") {
			t.Errorf("%s is not started:\n%.2000s", jail, out)
		}
	}
	// Debian 12 has Postfix in an instance, later Debians in the unit itself.
	if match := "['set', 'postfix-sasl', 'addjournalmatch', '_SYSTEMD_UNIT=postfix@-.service', '+', '_SYSTEMD_UNIT=postfix.service']"; !strings.Contains(string(out), match) {
		t.Errorf("no %s:\n%.2000s", match, out)
	}
}
