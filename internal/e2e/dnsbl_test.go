package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// dnsblSite is a site whose MX hook asks the lists of a DNS server.
func dnsblSite(t *testing.T, resolver string, flags ...string) *Site {
	t.Helper()
	return newSite(t, WithLists(SiteConfig{Policyd: flags}, resolver))
}

func TestDNSBL(t *testing.T) {
	t.Parallel()
	s := dnsblSite(t, resolvertest.New(t, Zones).Addr())
	eai := client("192.0.2.1", "mx.good.example", "x@bücher.example", Alice)
	eai.Parameters = []string{"SMTPUTF8"}
	tests := []struct {
		name   string
		mail   postfixtest.Mail
		code   int
		reason record.Reason
		text   string
	}{
		{"clean", client("192.0.2.1", "mx.good.example", "x@good.example", Alice), 250, record.DNSBLClean, ""},
		{"listed client", client("192.0.2.7", "mx.good.example", "x@good.example", Alice), 550, record.DNSBLClientListed,
			"192.0.2.7 is listed by zen.spamhaus.org (SBL, XBL): https://check.spamhaus.org/sbl/query/SBL1"},
		{"listed IPv6 client", client("2001:db8::1", "mx.good.example", "x@good.example", Alice), 550, record.DNSBLClientListed,
			"2001:db8::1 is listed by zen.spamhaus.org (CSS): https://check.spamhaus.org/results/?query=2001:db8::1"},
		{"listed sender", client("192.0.2.1", "mx.good.example", "x@spam.example", Alice), 550, record.DNSBLSenderListed,
			"spam.example is listed by dbl.spamhaus.org (DBL low reputation): https://check.spamhaus.org/results/?query=spam.example"},
		{"listed sender in U-labels", eai, 550, record.DNSBLSenderListed,
			"xn--bcher-kva.example is listed by dbl.spamhaus.org (DBL phish): https://check.spamhaus.org/results/?query=xn--bcher-kva.example"},
		{"listed name", client("192.0.2.1", "mx.spam.example", "x@good.example", Alice), 550, record.DNSBLHeloListed,
			"mx.spam.example is listed by dbl.spamhaus.org (DBL low reputation): https://check.spamhaus.org/results/?query=mx.spam.example"},
		{"null sender of a listed client", client("192.0.2.8", "mx.good.example", "", Alice), 550, record.DNSBLClientListed,
			"192.0.2.8 is listed by zen.spamhaus.org (PBL): https://check.spamhaus.org/results/?query=192.0.2.8"},
		{"abused domain", client("192.0.2.1", "mx.good.example", "x@abused.example", Alice), 250, record.DNSBLClean, ""},
		{"error code", client("192.0.2.9", "mx.good.example", "x@good.example", Alice), 250, record.DNSBLUnavailable, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			reply := send(t, s, postfixtest.MX, test.mail)
			want := "5.7.1 <" + test.mail.To[0] + ">: Recipient address rejected: " + test.text
			if reply.Code != test.code || test.code == 550 && reply.Lines[0] != want {
				t.Errorf("got %s, want %d %s", reply, test.code, want)
			}
			r, err := s.Record(t.Context(), test.mail)
			if err != nil {
				t.Fatal(err)
			}
			if reason, _ := r.Why(); reason != string(test.reason) {
				t.Errorf("the record says %s, want %s: %s", reason, test.reason, r.Raw)
			}
		})
	}
}

func TestDNSBLExempt(t *testing.T) {
	t.Parallel()
	dns := resolvertest.New(t, Zones)
	dir := t.TempDir()
	clients, recipients := filepath.Join(dir, "clients"), filepath.Join(dir, "recipients")
	replaceFile(t, clients, "2001:db8::/32\n")
	replaceFile(t, recipients, Bob+"\n")
	s := newSite(t, WithLists(SiteConfig{
		Policyd: []string{"--dnsbl-allow-clients=" + clients, "--dnsbl-allow-recipients=" + recipients},
		Postfix: func(c *postfixtest.Config) {
			c.MX[0] = strings.Replace(c.MX[0], "permit_sasl_authenticated, ", "", 1) // so that logins are seen
			c.Mailboxes = append(c.Mailboxes, "Postmaster@home.example", "abuse@home.example")
		},
	}, dns.Addr()))
	listed := func(to string) postfixtest.Mail { return client("192.0.2.7", "mx.good.example", "x@good.example", to) }
	expect(t, s, postfixtest.MX, listed(Alice), 550)
	expect(t, s, postfixtest.MX, listed("postmaster@home.example"), 250)
	expect(t, s, postfixtest.MX, listed("ABUSE@home.example"), 250)
	expect(t, s, postfixtest.MX, listed(Bob), 250)
	expect(t, s, postfixtest.MX, client("2001:db8::1", "mx.good.example", "x@good.example", Alice), 250)
	// A private address has no question, an address literal neither.
	asked := dns.Total()
	expect(t, s, postfixtest.MX, postfixtest.Mail{Client: "10.0.0.1", Helo: "[10.0.0.1]", From: "", To: []string{Alice}}, 250)
	if n := dns.Total(); n != asked {
		t.Errorf("%d questions about a private client: %v", n-asked, dns.Queries()[asked:])
	}
	// Who logs in may be in any list of dynamic addresses.
	m := As(Alice, Alice, Dora)
	m.Client, m.Name = "192.0.2.8", "dialup.spam.example"
	expect(t, s, postfixtest.Submission, m, 250)
	// A changed file is used without a restart.
	replaceFile(t, clients, "192.0.2.0/24\n")
	eventually(t, func() bool { return send(t, s, postfixtest.MX, listed(Alice)).Code == 250 })
}

// An error code must not refuse anybody's mail. It is said once, with the fix,
// is a gauge, and heals.
func TestDNSBLErrorCodes(t *testing.T) {
	t.Parallel()
	dns := resolvertest.New(t, "*.zen.spamhaus.org. 1 IN A 127.255.255.254\n*.dbl.spamhaus.org. 1 IN A 127.0.1.255\n")
	metrics, err := postfixtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	s := dnsblSite(t, dns.Addr(), "--metrics-listen=inet:"+metrics)
	for n := range 5 {
		expect(t, s, postfixtest.MX, client("192.0.2.7", "mx.spam.example", fmt.Sprintf("x%d@spam.example", n), Alice), 250)
	}
	for zone, state := range map[string]string{"zen.spamhaus.org": "public_resolver", "dbl.spamhaus.org": "address_asked"} {
		line, err := s.Policyd.WaitLine(t.Context(), func(r postfixtest.Record) bool {
			return r.Message == "state changed" && strings.Contains(r.Raw, zone)
		})
		if err != nil || line.Level != "error" || !strings.Contains(line.Raw, `"state":"`+state+`"`) || !strings.Contains(line.Raw, `"fix":"`) {
			t.Errorf("%s, %v", line.Raw, err)
		}
		if text := scrape(t, metrics); !strings.Contains(text, `zone="`+zone+`"} 0`) {
			t.Errorf("the gauge of %s:\n%s", zone, text)
		}
	}
	if n := strings.Count(s.Policyd.LogTail(), "state changed"); n != 2 {
		t.Errorf("%d state changes are told, want 2", n)
	}
	if err := dns.Replace(Zones); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		out, code := postern(t, s, "dnsbl", "selftest")
		return code == 0 && strings.Contains(out, "zen.spamhaus.org (address): in service")
	})
	expect(t, s, postfixtest.MX, client("192.0.2.8", "mx.good.example", "x@good.example", Alice), 550)
}

func TestDNSBLOnErrorDefer(t *testing.T) {
	t.Parallel()
	dns := resolvertest.New(t, Zones)
	dns.Fail("*.zen.spamhaus.org", resolvertest.ServFail)
	s := dnsblSite(t, dns.Addr(), "--dnsbl-on-error=defer")
	expect(t, s, postfixtest.MX, client("192.0.2.1", "mx.good.example", "x@good.example", Alice), 451)
	expect(t, s, postfixtest.MX, client("192.0.2.1", "mx.good.example", "x@spam.example", Alice), 550)
}

func scrape(t *testing.T, addr string) string {
	t.Helper()
	r, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// postern runs the command against a site's daemon and gives all its output.
func postern(t *testing.T, s *Site, args ...string) (out string, code int) {
	t.Helper()
	path, err := binaries.Path(t.Context(), "postern")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, append(args, "--admin="+filepath.Join(s.Dir, "policyd.sock"))...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func TestPosternDNSBL(t *testing.T) {
	t.Parallel()
	dns := resolvertest.New(t, Zones)
	s := dnsblSite(t, dns.Addr(), "--dnsbl=zen.spamhaus.org=127.0.0.[2..11;30]*1", "--dnsbl=list.dnswl.org=127.0.[2..20].[1..3]*-2")
	latency := regexp.MustCompile(`[0-9.]+ ms`)
	for _, c := range []struct {
		args string
		code int
		want []string
	}{
		{"check 192.0.2.7", 1, []string{
			"zen.spamhaus.org", "in service", "127.0.0.2,127.0.0.4", "SBL (listed), XBL (listed)", "+1", "N ms",
			"zen.spamhaus.org: https://check.spamhaus.org/sbl/query/SBL1", "192.0.2.7: score 1, threshold 1: refused"}},
		{"check 192.0.2.1", 0, []string{"not listed", "192.0.2.1: score 0, threshold 1: not refused"}},
		{"check Spam.Example", 1, []string{"dbl.spamhaus.org", "DBL low reputation (listed)", "spam.example: score 1"}},
		{"check abused.example", 0, []string{"DBL abused legit (abused)", "score 0"}},
		{"check 10.0.0.1", 1, []string{"10.0.0.1 is not asked about"}},
		{"check 192.0.2.7 --json", 1, []string{`"zone": "zen.spamhaus.org"`, `"code": "127.0.0.4"`, `"meaning": "XBL"`, `"class": "listed"`, `"state": "in service"`, `"latency_ms": `, `"refused": true`}},
		{"selftest", 1, []string{"list.dnswl.org (address): lists_nothing", "127.0.0.2", "should be listed", "as it should be", "zen.spamhaus.org (address): in service", "need not be listed", "RFC 5782 section 5"}},
		{"selftest --json", 1, []string{`"healthy": false`, `"subject": "dbltest.com"`}},
		{"check", 2, []string{"usage: postern dnsbl check"}},
	} {
		out, code := postern(t, s, append([]string{"dnsbl"}, strings.Fields(c.args)...)...)
		out = latency.ReplaceAllString(out, "N ms")
		for _, want := range c.want {
			if code != c.code || !strings.Contains(out, want) {
				t.Errorf("dnsbl %s: exit %d, no %q in\n%s", c.args, code, want, out)
			}
		}
	}
	// Without the daemon, its settings say whom to ask.
	if err := s.Policyd.Stop(); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "policyd.toml")
	replaceFile(t, config, fmt.Sprintf("checks = [\"dnsbl\"]\nresolver = [%q]\n", dns.Addr()))
	for subject, want := range map[string]string{"192.0.2.7": "192.0.2.7: score 1, threshold 1: refused", "192.0.2.1": "not refused"} {
		out, code := postern(t, s, "dnsbl", "check", subject, "--config="+config)
		if (code == 1) != (subject == "192.0.2.7") || code > 1 || !strings.Contains(out, "postern-policyd does not run") || !strings.Contains(out, want) {
			t.Errorf("exit %d\n%s", code, out)
		}
	}
	if out, code := postern(t, s, "dnsbl", "selftest", "--config="+config); code != 0 || !strings.Contains(out, "zen.spamhaus.org (address): in service") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if out, code := postern(t, s, "dnsbl", "check", "192.0.2.7", "--config=/nonexistent"); code != 2 || !strings.Contains(out, "/nonexistent") {
		t.Errorf("exit %d\n%s", code, out)
	}
}

// The key of the keyed service appears in nothing that leaves the daemon, while
// lists are asked, refuse, and put the key into their own words.
func TestDQSKeyIsNowhere(t *testing.T) {
	t.Parallel()
	const key = "k7wqkeykeykeykeykeykeykey9"
	dns := resolvertest.New(t, `
2.0.0.127.`+key+`.zen.dq.spamhaus.net. IN A 127.0.0.2
7.2.0.192.`+key+`.zen.dq.spamhaus.net. IN A 127.0.0.2
7.2.0.192.`+key+`.zen.dq.spamhaus.net. IN TXT "https://x.example/`+strings.ToUpper(key)+`?k=`+key+`"
*.`+key+`.dbl.dq.spamhaus.net. IN A 127.255.255.255
new.example.`+key+`.zrd.dq.spamhaus.net. IN A 127.0.2.2
`)
	dns.Fail("8.2.0.192."+key+".zen.dq.spamhaus.net", resolvertest.Refused)
	keyFile := filepath.Join(t.TempDir(), "dqs")
	if err := os.WriteFile(keyFile, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	metrics, err := postfixtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	s := dnsblSite(t, dns.Addr(), "--dqs-key-file="+keyFile, "--metrics-listen=inet:"+metrics, "--log-level=debug")
	var seen strings.Builder
	reply := send(t, s, postfixtest.MX, client("192.0.2.7", "mx.good.example", "x@good.example", Alice))
	if reply.Code != 550 || !strings.Contains(reply.String(), "zen.spamhaus.org (SBL): https://x.example/***?k=***") {
		t.Errorf("%s", reply)
	}
	fmt.Fprintln(&seen, reply)
	for _, m := range []postfixtest.Mail{
		client("192.0.2.8", "mx.good.example", "x@new.example", Alice),
		client("192.0.2.1", "mx.new.example", "y@good.example", Alice),
	} {
		fmt.Fprintln(&seen, send(t, s, postfixtest.MX, m))
		r, err := s.Record(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&seen, r.Raw)
	}
	for _, args := range []string{"check 192.0.2.7", "check 192.0.2.8", "check new.example", "check 192.0.2.7 --json", "selftest", "selftest --json"} {
		out, _ := postern(t, s, append([]string{"dnsbl"}, strings.Fields(args)...)...)
		fmt.Fprintln(&seen, out)
	}
	fmt.Fprintln(&seen, scrape(t, metrics))
	fmt.Fprintln(&seen, checkConfig(t, s, "--dqs-key-file="+keyFile))
	// A key that is in the settings themselves is refused, and not repeated.
	for _, args := range [][]string{{"--dnsbl=" + key + ".zen.dq.spamhaus.net"}, {"--dbl", "x*" + key + ".dbl.dq.spamhaus.net"}} {
		fmt.Fprintln(&seen, checkConfig(t, s, args...))
	}
	replaceFile(t, keyFile, key+".not\n")
	fmt.Fprintln(&seen, checkConfig(t, s, "--dqs-key-file="+keyFile))
	if err := s.Policyd.Stop(); err != nil {
		t.Error(err)
	}
	fmt.Fprintln(&seen, s.Policyd.LogTail(), s.Postfix.LogTail())

	all := strings.ToLower(seen.String())
	for _, must := range []string{"zrd 2 h", "too_many_queries", "server answered refused", "this is not a dqs key", "put the key into a file", "dqs-key-file = \"", "postern_dnsbl_zone_up"} {
		if !strings.Contains(all, must) {
			t.Errorf("%q was never said, so nothing is shown about it", must)
		}
	}
	if at := strings.Index(all, key); at >= 0 {
		t.Errorf("the key is in …%s…", all[max(0, at-200):at+40])
	}
	if !slices.ContainsFunc(dns.Queries(), func(q resolvertest.Query) bool { return q.Name == "7.2.0.192."+key+".zen.dq.spamhaus.net." }) {
		t.Error("the keyed service was not asked")
	}
}

// checkConfig gives what --check-config prints.
func checkConfig(t *testing.T, s *Site, args ...string) string {
	t.Helper()
	path, err := binaries.Path(t.Context(), "postern-policyd")
	if err != nil {
		t.Fatal(err)
	}
	all := append([]string{"--config=", "--check-config", "--checks=ownership,dnsbl", "--owners=static:x", "--admin=", "--metrics-listen=", "--listen=unix:" + filepath.Join(s.Dir, "check.sock")}, args...)
	out, err := exec.CommandContext(t.Context(), path, all...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out)
}

// TestDNSBLThroughUnbound has Debian's resolver between us and the lists, with
// its cache and its own idea of failures.
func TestDNSBLThroughUnbound(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	dns := resolvertest.New(t, Zones)
	dns.Fail("*.broken.example.dbl.spamhaus.org", resolvertest.Refused)
	s := dnsblSite(t, startUnbound(t, dns.Addr()), "--dnsbl-on-error=defer")
	for range 2 { // the second time out of caches
		expect(t, s, postfixtest.MX, client("192.0.2.1", "mx.good.example", "x@good.example", Alice), 250)
		expect(t, s, postfixtest.MX, client("192.0.2.7", "mx.good.example", "x@good.example", Alice), 550)
		expect(t, s, postfixtest.MX, client("2001:db8::1", "mx.good.example", "x@good.example", Alice), 550)
		expect(t, s, postfixtest.MX, client("192.0.2.1", "mx.good.example", "x@a.spam.example", Alice), 550)
		expect(t, s, postfixtest.MX, client("192.0.2.1", "mx.good.example", "x@a.broken.example", Alice), 451)
	}
	if out, code := postern(t, s, "dnsbl", "selftest"); code != 0 {
		t.Errorf("exit %d:\n%s", code, out)
	}
}

// startUnbound runs a private unbound that forwards everything to authority.
func startUnbound(t *testing.T, authority string) string {
	t.Helper()
	path, err := exec.LookPath("unbound")
	if err != nil {
		path = "/usr/sbin/unbound"
	}
	addr, err := postfixtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "unbound.conf")
	replaceFile(t, conf, fmt.Sprintf(`server:
	interface: %s
	do-daemonize: no
	username: ""
	chroot: ""
	directory: %q
	pidfile: ""
	use-syslog: no
	module-config: "iterator"
	do-not-query-localhost: no
	local-zone: "example." transparent
	local-zone: "invalid." transparent
	local-zone: "test." transparent
remote-control:
	control-enable: no
forward-zone:
	name: "."
	forward-addr: %s
`, strings.Replace(addr, ":", "@", 1), dir, strings.Replace(authority, ":", "@", 1)))
	cmd := exec.CommandContext(t.Context(), path, "-d", "-c", conf)
	var log strings.Builder
	cmd.Stderr, cmd.Stdout = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("unbound says:\n%s", &log)
		}
	})
	eventually(t, func() bool {
		r, err := resolver.New(resolver.Config{Servers: []string{addr}, CacheBytes: -1, Timeout: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		_, err = r.Query(t.Context(), "2.0.0.127.zen.spamhaus.org", resolver.TypeA)
		return err == nil
	})
	return addr
}

// TestDNSBLAgainstPostfix asks Postfix's own restrictions and ours about the
// same clients and names, over the same lists. Where they differ, the table
// says why.
func TestDNSBLAgainstPostfix(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	dns := newResolverAt53(t, Zones) // resolv.conf knows no ports
	theirs := postfixOn(t, dns.Addr(), "smtpd_recipient_restrictions = reject_unauth_destination, "+
		"reject_rbl_client zen.spamhaus.org=127.0.0.[2..11], reject_rhsbl_sender dbl.spamhaus.org=127.0.1.[2..99], "+
		"reject_rhsbl_helo dbl.spamhaus.org=127.0.1.[2..99], reject_rhsbl_client dbl.spamhaus.org=127.0.1.[2..99], reject_rhsbl_reverse_client dbl.spamhaus.org=127.0.1.[2..99]")
	ours := dnsblSite(t, dns.Addr())
	with := func(m postfixtest.Mail, change func(*postfixtest.Mail)) postfixtest.Mail {
		change(&m)
		return m
	}
	good := client("192.0.2.1", "mx.good.example", "x@good.example", Alice)
	for _, c := range []struct {
		name         string
		mail         postfixtest.Mail
		ours, theirs bool // refused
		why          string
	}{
		{"clean", good, false, false, ""},
		{"listed IPv4", with(good, func(m *postfixtest.Mail) { m.Client = "192.0.2.7" }), true, true, ""},
		{"PBL", with(good, func(m *postfixtest.Mail) { m.Client = "192.0.2.8" }), true, true, ""},
		{"listed IPv6", with(good, func(m *postfixtest.Mail) { m.Client = "2001:db8::1" }), true, true, ""},
		{"error code outside the filter", with(good, func(m *postfixtest.Mail) { m.Client = "192.0.2.9" }), false, false, ""},
		{"sender", with(good, func(m *postfixtest.Mail) { m.From = "x@spam.example" }), true, true, ""},
		{"sender below", with(good, func(m *postfixtest.Mail) { m.From = "x@a.b.SPAM.example" }), true, true, ""},
		{"sender in A-labels", with(good, func(m *postfixtest.Mail) { m.From = "x@xn--bcher-kva.example" }), true, true, ""},
		{"sender in U-labels", with(good, func(m *postfixtest.Mail) { m.From, m.Parameters = "x@bücher.example", []string{"SMTPUTF8"} }), true, true, ""},
		{"abused sender", with(good, func(m *postfixtest.Mail) { m.From = "x@abused.example" }), false, false, ""},
		{"null sender", with(good, func(m *postfixtest.Mail) { m.From = "" }), false, false, ""},
		{"HELO", with(good, func(m *postfixtest.Mail) { m.Helo = "h.spam.example" }), true, true, ""},
		{"HELO literal", with(good, func(m *postfixtest.Mail) { m.Helo = "[192.0.2.7]" }), false, false, ""},
		{"HELO address", with(good, func(m *postfixtest.Mail) { m.Helo = "192.0.2.7" }), false, false, ""},
		{"HELO ends in a number", with(good, func(m *postfixtest.Mail) { m.Helo = "spam.7" }), false, false, ""},
		{"client name", with(good, func(m *postfixtest.Mail) { m.Name = "c.spam.example" }), true, true, ""},
		{"no client name", with(good, func(m *postfixtest.Mail) { m.Name = "" }), false, false, ""},
		{"HELO without dot", with(good, func(m *postfixtest.Mail) { m.Helo = "test" }), false, true,
			"a name without dot is no domain; lists hold their self-test entry there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := theirs.Send(t.Context(), postfixtest.MX, c.mail)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Final(); (got.Code == 554) != c.theirs || !c.theirs && got.Code != 250 {
				t.Errorf("Postfix says %s, refused: %v expected", got, c.theirs)
			}
			if got := send(t, ours, postfixtest.MX, c.mail); (got.Code == 550) != c.ours || !c.ours && got.Code != 250 {
				t.Errorf("we say %s, refused: %v expected", got, c.ours)
			}
			if (c.why == "") != (c.ours == c.theirs) {
				t.Error("a difference without a reason, or a reason without difference")
			}
		})
	}
}

// postfixOn starts a private Postfix whose resolv.conf names one server.
func postfixOn(t *testing.T, server, mx string) *postfixtest.Postfix {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	replaceFile(t, conf, "nameserver "+strings.TrimSuffix(server, ":53")+"\noptions timeout:5\n")
	var p *postfixtest.Postfix
	err := withResolvConf(conf, func() (err error) {
		p, err = postfixtest.Start(t.Context(), postfixtest.Config{Mailboxes: []string{Alice}, MX: []string{mx}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Postfix's log ends:\n%s", p.LogTail())
		}
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// withResolvConf runs f on a thread with a mount namespace of its own, where
// another file lies on /etc/resolv.conf. Processes that f starts inherit it; the
// thread ends with f.
func withResolvConf(path string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread is of no use to others any more
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("mount /: %w", err)
			}
			if err := unix.Mount(path, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
				return fmt.Errorf("mount %s: %w", path, err)
			}
			return f()
		}()
	}()
	return <-done
}
