package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// newSigningSite is newSite with postern-milterd.
func newSigningSite(t *testing.T, c SiteConfig) *Site {
	t.Helper()
	c.Signing = true
	s := newSite(t, c)
	t.Cleanup(func() { // runs before the site stops
		if t.Failed() {
			t.Logf("postern-milterd's log ends:\n%s", s.Milterd.LogTail())
		}
	})
	return s
}

// runSigned runs a case and fails the test unless all was as expected.
func runSigned(t *testing.T, s *Site, c SignCase) SignOutcome {
	t.Helper()
	o, err := c.Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if o.Wrong != nil {
		t.Error(o.Wrong)
	}
	return o
}

func bySubmission(m postfixtest.Mail, reason record.Reason, good int) SignCase {
	return SignCase{Name: string(reason), Service: postfixtest.Submission, Mail: m, Reason: reason, Good: good}
}

func TestSignCases(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{})
	for _, c := range SignCases() {
		t.Run(c.Name, func(t *testing.T) { runSigned(t, s, c) })
	}
}

// TestSignedMail looks at a signed mail closely.
func TestSignedMail(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{})
	m := As(Alice, Alice, Dora)
	m.Message = "From: =?utf-8?q?Alice?= <Alice@Home.Example>\nTo: Dora <" + Dora + ">\nSubject: folded\n\tand folded again\nMessage-ID: <one@home.example>\n" +
		"Date: Mon, 1 Jan 2024 00:00:00 +0000\n\n.dot\n\n  spaces \t here  \nlast line\n\n\n"
	o := runSigned(t, s, bySubmission(m, record.Signed, 2))
	r := o.Record
	if r.SignedBy != "home.example/postern,home.example/postern-ed25519" || r.From != "home.example" || r.MessageID != "<one@home.example>" ||
		r.SASLUsername != Alice || r.QueueID == "" || r.Verdict != "pass" || r.Daemon != "milterd" || r.Error != "" ||
		r.Action != "accept, insert DKIM-Signature, insert DKIM-Signature" {
		t.Errorf("record %s", r.Raw)
	}
	text := string(o.Delivered.Data)
	if !strings.HasPrefix(text, "DKIM-Signature: ") {
		t.Errorf("no signature at the top of\n%s", text)
	}
	for _, field := range signatureFields(text) {
		for line := range strings.SplitSeq(field, "\r\n") {
			if len(line) > 78 {
				t.Errorf("a line of %d octets: %q", len(line), line)
			}
		}
	}
	openDKIM(t, s, o.Delivered.Data)

	// What a reader sees cannot be changed, nor added to.
	for _, change := range [][2]string{
		{"Subject: folded", "Subject: other"},
		{"last line", "lost line"},
		{"Subject: folded", "Subject: added\r\nSubject: folded"},
		{"\r\n\r\n.dot", "\r\nReply-To: <mallory@away.example>\r\n\r\n.dot"},
	} {
		changed := strings.Replace(text, change[0], change[1], 1)
		good, all, err := VerifyDKIM(t.Context(), s.DNS, []byte(changed))
		if err != nil || changed == text || good != 0 || all != 2 {
			t.Errorf("with %q: %d of %d verify, %v", change[1], good, all, err)
		}
	}

	// Mail that comes back with our valid signatures is not signed again; one
	// that was changed on the way is.
	for _, again := range []struct {
		text   string
		reason record.Reason
		good   int
		all    int
	}{{text, record.SignAlreadySigned, 2, 2}, {strings.Replace(text, "last line", "new line", 1), record.Signed, 2, 4}} {
		m.Message = again.text
		o, err := bySubmission(m, again.reason, again.good).Run(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if o.Record.Reason != string(again.reason) || o.Good != again.good || o.All != again.all {
			t.Errorf("%s: %d of %d verify, want %s with %d of %d", o.Record.Reason, o.Good, o.All, again.reason, again.good, again.all)
		}
	}
}

// TestSignaturesArrive takes signed mail over real next hops: one without 8BITMIME,
// for which Postfix relabels the body, and one that adds what is missing.
func TestSignaturesArrive(t *testing.T) {
	t.Parallel()
	first := newSigningSite(t, SiteConfig{Postfix: func(c *postfixtest.Config) {
		c.Main = append(c.Main, "local_header_rewrite_clients =", "lmtp_discard_lhlo_keywords = 8bitmime, smtputf8")
	}})
	second := newSite(t, SiteConfig{Postfix: func(c *postfixtest.Config) {
		c.Main = append(c.Main, "always_add_missing_headers = yes", "undisclosed_recipients_header = To: undisclosed-recipients:;")
	}})
	const label = "Content-Transfer-Encoding: 8bit\n"
	for name, header := range map[string]string{
		"bare":    "From: <" + Alice + ">\nSubject: x\n",
		"labeled": "From: <" + Alice + ">\nTo: <" + Dora + ">\nSubject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n" + label,
	} {
		t.Run(name, func(t *testing.T) {
			m := As(Alice, Alice, Dora)
			m.Message = header + "\nplain ASCII\n"
			text := string(runSigned(t, first, bySubmission(m, record.Signed, 2)).Delivered.Data)
			if strings.Contains(text, "Encoding: 8bit") || strings.Contains(text, "Message-Id:") {
				t.Fatalf("Postfix did not do what it is here for:\n%s", text)
			}
			again := fromOutside(Alice, Dora)
			again.Message = text
			expect(t, second, postfixtest.MX, again, 250)
			d, err := second.Postfix.Delivered(t.Context(), Dora)
			if err != nil {
				t.Fatal(err)
			}
			good, all, err := VerifyDKIM(t.Context(), first.DNS, d.Data)
			if err != nil || good != 2 || all != 2 || !bytes.Contains(d.Data, []byte("\nMessage-Id:")) {
				t.Errorf("%d of %d verify, %v:\n%s", good, all, err, d.Data)
			}
		})
	}
}

// signatureFields are the DKIM-Signature fields as written.
func signatureFields(text string) []string {
	head, _, _ := strings.Cut(text, "\r\n\r\n")
	return regexp.MustCompile(`(?m)^DKIM-Signature:.*\r\n([ \t].*\r\n)*`).FindAllString(head+"\r\n", -1)
}

// openDKIM has Debian's opendkim verify the RSA signature; it knows no other.
func openDKIM(t *testing.T, s *Site, mail []byte) {
	t.Helper()
	dir := t.TempDir()
	record, err := s.DNSText(t.Context(), "postern._domainkey.home.example")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"mail": string(mail),
		"zone": "postern._domainkey.home.example " + record + "\n",
		"conf": "Mode v\nTestDNSData " + filepath.Join(dir, "zone") + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("/usr/sbin/opendkim", "-x", filepath.Join(dir, "conf"), "-t", filepath.Join(dir, "mail")).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("verification (s=postern, d=home.example, 2048-bit key) succeeded")) {
		t.Errorf("opendkim: %v\n%s", err, out)
	}
}

// DNSText is the one TXT record of a name.
func (s *Site) DNSText(ctx context.Context, name string) (string, error) {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, s.DNS.Addr())
	}}
	texts, err := r.LookupTXT(ctx, name+".")
	if err == nil && len(texts) != 1 {
		err = fmt.Errorf("%s has %d TXT records", name, len(texts))
	}
	if err != nil {
		return "", err
	}
	return texts[0], nil
}

func TestNeverSigned(t *testing.T) {
	t.Parallel()
	// For clients of its own Postfix adds a missing From, and fixes broken ones.
	s := newSigningSite(t, SiteConfig{Postfix: func(c *postfixtest.Config) {
		c.Main = append(c.Main, "local_header_rewrite_clients =")
	}})
	without := As(Alice, Alice, Dora)
	without.Message = "To: <" + Dora + ">\nSubject: nobody's\n\nHello.\n"
	tests := []struct {
		name   string
		mail   postfixtest.Mail
		reason record.Reason
	}{
		{"no From", without, record.SignNoFrom},
		{"two From fields", withFrom("<" + Alice + ">\nfrom: <" + Alice + ">"), record.SignSeveralFrom},
		{"another domain", withFrom("<alice@away.example>"), record.SignNoKey},
		{"a subdomain", withFrom("<alice@sub.home.example>"), record.SignNoKey},
		{"a parent", withFrom("<alice@example>"), record.SignNoKey},
		{"two domains", withFrom("<" + Alice + ">, <eve@away.example>"), record.SignSeveralDomains},
		{"no address", withFrom("Alice"), record.SignBadFrom},
		{"an empty group", withFrom("us: ;"), record.SignBadFrom},
		{"a group of two domains", withFrom("us: <" + Alice + ">, <eve@away.example>;"), record.SignSeveralDomains},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := runSigned(t, s, bySubmission(test.mail, test.reason, 0))
			if o.Record.SignedBy != "" || o.Record.Verdict != "pass" || o.Record.Action != "accept" {
				t.Errorf("record %s", o.Record.Raw)
			}
		})
	}
	// What breaks the syntax and has one domain for every reader is signed, and
	// verifies as Postfix passes it on.
	for _, from := range []string{"Doe, Alice <" + Alice + ">", "Alice <" + Alice + ">,", "Alice <" + Alice + ">;", "Sales; Berlin <" + Alice + ">", "us: <" + Alice + ">;"} {
		t.Run(from, func(t *testing.T) { runSigned(t, s, bySubmission(withFrom(from), record.Signed, 2)) })
	}
	// Other people's mail is not signed, whatever it says of itself.
	stranger := fromOutside(Alice, Dora)
	stranger.Message = withFrom("<" + Alice + ">").Message
	expect(t, s, postfixtest.MX, stranger, 250)
	d, err := s.Postfix.Delivered(t.Context(), Dora)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(d.Headers("DKIM-Signature")); n != 0 {
		t.Errorf("%d signatures on a stranger's mail", n)
	}
}

// TestRolesBySession attaches --listen, where the session says whose mail it is.
func TestRolesBySession(t *testing.T) {
	t.Parallel()
	addr, err := postfixtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	s := newSigningSite(t, SiteConfig{Milterd: []string{"--listen", "inet:" + addr}, Postfix: func(c *postfixtest.Config) {
		milter := "smtpd_milters=inet:" + addr
		c.More = []postfixtest.Service{
			{Name: "login", Login: true, Options: []string{milter}},
			{Name: "originating", Options: []string{milter, "milter_macro_daemon_name=originating"}},
			{Name: "nobody", Options: []string{milter, "milter_macro_daemon_name=MX"}},
		}
	}})
	outside := fromOutside(Alice, Dora)
	tests := []struct {
		service string
		mail    postfixtest.Mail
		signed  int
	}{
		{"login", As(Alice, Alice, Dora), 2},
		{"login", outside, 0},
		{"originating", outside, 2},
		{"nobody", outside, 0},
		// Loopback is no proof: content filters hand back everybody's mail from there.
		{"nobody", postfixtest.Mail{From: Alice, To: []string{Dora}}, 0},
	}
	for _, test := range tests {
		expect(t, s, test.service, test.mail, 250)
		d, err := s.Postfix.Delivered(t.Context(), Dora)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(d.Headers("DKIM-Signature")); n != test.signed {
			t.Errorf("%s, login %q: %d signatures, want %d", test.service, test.mail.Login, n, test.signed)
		}
	}
}

// TestKeysAppear asserts that keys that are made, spoilt or taken away while the
// daemon runs are noticed by themselves.
func TestKeysAppear(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{})
	signed := func() int {
		expect(t, s, postfixtest.Submission, As(Alice, Alice, Dora), 250)
		d, err := s.Postfix.Delivered(t.Context(), Dora)
		if err != nil {
			t.Fatal(err)
		}
		return len(d.Headers("DKIM-Signature"))
	}
	postern := func(args ...string) {
		t.Helper()
		if _, err := s.Postern(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	if n := signed(); n != 2 {
		t.Fatalf("%d signatures", n)
	}
	postern("dkim", "genkey", homeDomain, "--dir", s.KeysDir, "--selector", "next", "--type", "ed25519")
	eventually(t, func() bool { return signed() == 3 })
	if err := s.PublishKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	runSigned(t, s, bySubmission(As(Alice, Alice, Dora), record.Signed, 3))

	// A key that is spoilt leaves the old state in force, loudly.
	spoilt := filepath.Join(s.KeysDir, homeDomain, "next.private")
	if err := os.Chmod(spoilt, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Milterd.WaitLine(t.Context(), func(r postfixtest.Record) bool {
		return r.Level == "error" && strings.Contains(r.Raw, "chmod 0600 "+spoilt)
	}); err != nil {
		t.Fatal(err)
	}
	runSigned(t, s, bySubmission(As(Alice, Alice, Dora), record.Signed, 3))

	if err := os.Remove(spoilt); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return signed() == 2 })
	out, err := s.Postern(t.Context(), "dkim", "keys", "--admin", filepath.Join(s.Dir, "milterd.sock"))
	if err != nil || strings.Count(out, "home.example") != 2 {
		t.Errorf("postern dkim keys: %v\n%s", err, out)
	}
}

// TestOpenDKIMTables signs with OpenDKIM's own files.
func TestOpenDKIMTables(t *testing.T) {
	t.Parallel()
	dir, err := postfixtest.MakeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	keyTable, signingTable := filepath.Join(dir, "KeyTable"), filepath.Join(dir, "SigningTable")
	siteDir := filepath.Join(dir, "site")
	if err := os.Mkdir(siteDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		keyTable:     "ours home.example:postern:" + siteDir + "/dkim/home.example/postern.private\n",
		signingTable: "# who signs with what\n*@home.example\tours\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := newSigningSite(t, SiteConfig{Dir: siteDir, Milterd: []string{
		"--dkim-keys=", "--dkim-key-table", keyTable, "--dkim-signing-table", "refile:" + signingTable,
	}})
	runSigned(t, s, bySubmission(As(Alice, Alice, Dora), record.Signed, 1))
}

// TestMilterDrain stops the daemon under a session that Postfix holds: its next
// messages are still signed, and the daemon ends with it.
func TestMilterDrain(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{})
	c := open(t, s, Alice)
	signed := func() {
		t.Helper()
		if got := transact(t, c, As(Alice, Alice, Dora)); got.Code != 250 {
			t.Fatalf("%s", got)
		}
		d, err := s.Postfix.Delivered(t.Context(), Dora)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(d.Headers("DKIM-Signature")); n != 2 {
			t.Errorf("%d signatures, want 2", n)
		}
	}
	signed()
	if err := s.Milterd.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for { // until it accepts no more
		conn, err := net.Dial("tcp", s.ourAddr)
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	signed()
	signed()
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	if code, err := s.Milterd.Wait(t.Context()); err != nil || code != 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
	// While the daemon is away local mail passes unsigned, as default_action says.
	if err := s.Postfix.Sendmail(t.Context(), "From: <"+Alice+">\nSubject: x\n\nx\n", "-f", Alice, "--", Dora); err != nil {
		t.Fatal(err)
	}
	d, err := s.Postfix.Delivered(t.Context(), Dora)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(d.Headers("DKIM-Signature")); n != 0 {
		t.Errorf("%d signatures by nobody", n)
	}
}

// TestMilterRestart restarts a daemon whose socket stays open, as systemd keeps
// it: the session that Postfix holds goes on with the old daemon, one that begins
// meanwhile waits for the new one, and all mail is signed.
func TestMilterRestart(t *testing.T) {
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
	s := newSigningSite(t, SiteConfig{Postfix: func(c *postfixtest.Config) {
		c.Submission = append(c.Submission, "smtpd_milters=inet:"+listener.Addr().String())
	}})
	restart := func() {
		t.Helper()
		config, err := s.MilterdConfig(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		config.Args = append(config.Args, "--listen-sign", "systemd")
		config.Files = []*os.File{file}
		if s.Milterd, err = postfixtest.StartDaemon(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
	signed := func(to string) {
		t.Helper()
		d, err := s.Postfix.Delivered(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(d.Headers("DKIM-Signature")); n != 2 {
			t.Errorf("to %s: %d signatures, want 2", to, n)
		}
	}
	if err := s.Milterd.Stop(); err != nil {
		t.Fatal(err)
	}
	restart()
	held := open(t, s, Alice)
	transact(t, held, As(Alice, Alice, Dora))
	signed(Dora)
	if err := s.Milterd.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for { // until it drains: its other sockets are closed with this one
		conn, err := net.Dial("tcp", s.verifyAddr)
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	sent := make(chan error, 1)
	go func() {
		r, err := s.Postfix.Send(t.Context(), postfixtest.Submission, As(Bob, Bob, Press))
		if err == nil && r.Final().Code != 250 {
			err = fmt.Errorf("new session: %s", r.Final())
		}
		sent <- err
	}()
	transact(t, held, As(Alice, Alice, Dora))
	signed(Dora)
	if err := held.Quit(); err != nil {
		t.Error(err)
	}
	if code, err := s.Milterd.Wait(t.Context()); err != nil || code != 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
	restart()
	if err := <-sent; err != nil {
		t.Error(err)
	}
	signed(Press)
}

// TestDrainTimeout holds a session for longer than --drain-timeout: the daemon
// ends all the same, and says what it cut.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{Milterd: []string{"--drain-timeout", "1s"}})
	c := open(t, s, Alice)
	if got := transact(t, c, As(Alice, Alice, Dora)); got.Code != 250 {
		t.Fatalf("%s", got)
	}
	if err := s.Milterd.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := s.Milterd.Wait(t.Context()); err != nil || code != 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// TestBadDNS asserts that signing does not depend on the DNS: with servers that
// are silent, broken or lying the mail is signed all the same, and the log says
// what is wrong.
func TestBadDNS(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{Milterd: []string{"--dkim-require-dns", "--dns-timeout", "100ms"}})
	tests := []struct {
		fault resolvertest.Fault
		want  string
	}{
		{resolvertest.ServFail, "could not be looked up"},
		{resolvertest.Silence, "could not be looked up"},
		{resolvertest.WrongID, "could not be looked up"},
		{resolvertest.Garbage, "could not be looked up"},
		{resolvertest.CNAMELoop, "could not be looked up"},
		{resolvertest.Healthy, "is in the DNS"},
	}
	for _, test := range tests {
		t.Run(string(test.fault), func(t *testing.T) {
			if err := s.Milterd.Stop(); err != nil {
				t.Fatal(err)
			}
			for _, selector := range []string{"postern", "postern-ed25519"} {
				s.DNS.Fail(selector+"._domainkey.home.example.", test.fault)
			}
			if test.fault == resolvertest.Healthy { // an answer has its time
				s.extra = []string{"--dns-timeout", "20s"}
			}
			if err := s.StartMilterd(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Milterd.WaitLine(t.Context(), func(r postfixtest.Record) bool { return strings.Contains(r.Message, test.want) }); err != nil {
				t.Error(err)
			}
			expect(t, s, postfixtest.Submission, As(Alice, Alice, Dora), 250)
			d, err := s.Postfix.Delivered(t.Context(), Dora)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(d.Headers("DKIM-Signature")); n != 2 {
				t.Errorf("%d signatures, want 2", n)
			}
		})
	}
}

// badKey is a key folder, made below dir, and what the refusal must say.
type badKey struct {
	name string
	make func(t *testing.T, dir string)
	want []string
}

func badKeys() []badKey {
	key := func(dir string) string { return filepath.Join(dir, homeDomain, "s.private") }
	openssl := func(t *testing.T, dir string, args ...string) {
		t.Helper()
		if out, err := exec.Command("openssl", append(args, "-out", key(dir))...).CombinedOutput(); err != nil {
			t.Fatalf("openssl: %v\n%s", err, out)
		}
	}
	write := func(text string, mode os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(key(dir), []byte(text), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	rsa := func(bits string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			openssl(t, dir, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:"+bits)
			if err := os.Chmod(key(dir), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return []badKey{
		{"for everybody", write("x", 0o604), []string{"mode 0604", "chmod 0600"}},
		{"for the group", func(t *testing.T, dir string) {
			write("x", 0o640)(t, dir)
			if err := os.Chown(key(dir), -1, 65534); err != nil {
				t.Fatal(err)
			}
		}, []string{"mode 0640", "chmod 0600"}},
		{"no PEM", write("nothing\n", 0o600), []string{"holds no private key in PEM"}},
		{"broken PEM", write("-----BEGIN PRIVATE KEY-----\r\nAAAA\r\n-----END PRIVATE KEY-----\r\n", 0o600), []string{"not a PKCS#8 key"}},
		{"public key", write("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", 0o600), []string{"holds a public key"}},
		{"512 bit", rsa("512"), []string{"RSA key of 512 bit"}},
		{"4100 bit", rsa("4100"), []string{"RSA key of 4100 bit"}},
		{"symlink loop", func(t *testing.T, dir string) {
			if err := os.Symlink("s.private", key(dir)); err != nil {
				t.Fatal(err)
			}
		}, []string{"symbolic link that leads back to itself"}},
		{"folder of everybody", func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, homeDomain), 0o777); err != nil {
				t.Fatal(err)
			}
		}, []string{"mode 0777", "chmod o-w"}},
	}
}

// TestBadKeys asserts, for the daemon and for --check-config, exit status 78 and
// one line that names the key and the fix.
func TestBadKeys(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	for _, test := range badKeys() {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, homeDomain), 0o700); err != nil {
				t.Fatal(err)
			}
			test.make(t, dir)
			refused(t, append(test.want, "--dkim-keys: ", dir), "--dkim-keys", dir)
		})
	}
	t.Run("unreadable for the user", func(t *testing.T) {
		dir, err := postfixtest.MakeDir()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		if err := os.Mkdir(filepath.Join(dir, homeDomain), 0o755); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, homeDomain, "s.private")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, []string{"open " + path + ": permission denied", "give the daemon's user access"}, "--dkim-keys", dir, "--user", "nobody")
	})
}

// TestBadMilterdSettings is for what no key is to blame for.
func TestBadMilterdSettings(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "milterd.toml")
	if err := os.WriteFile(file, []byte("# fine\nlisten-sign = [\"inet:127.0.0.1:0\"]\ndkim-key = \"/x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, []string{file + ":3: ", "dkim-key", "did you mean dkim-keys?"}, "--config", file)
	refused(t, []string{"--dkim-keys", "/nonexistent"}, "--dkim-keys", "/nonexistent")
	refused(t, []string{"--user", "nobody-here"}, "--user", "nobody-here")
	refused(t, []string{"--rsa-engine", "built without OpenSSL", "make openssl"}, "--rsa-engine", "openssl", "--listen-sign", "inet:127.0.0.1:0") // the programs of these tests are pure Go
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	// Nothing is bound to check the configuration: this is for the daemon alone.
	// The port may be free again in a moment, so the status is not 78.
	refusedBy(t, milterd(t), 75, []string{"--listen-sign inet:" + taken.Addr().String(), "address already in use", "ss -ltnp"},
		"--config=", "--listen-sign", "inet:"+taken.Addr().String())
}

func milterd(t *testing.T) string {
	t.Helper()
	path, err := binaries.Path(t.Context(), "postern-milterd")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// refused runs postern-milterd as a daemon and with --check-config.
func refused(t *testing.T, want []string, args ...string) {
	t.Helper()
	base := []string{"--resolver=127.0.0.1", "--metrics-listen=", "--admin=", "--listen-verify=inet:127.0.0.1:0"}
	if !slices.Contains(args, "--config") {
		base = append(base, "--config=")
	}
	args = append(base, args...)
	refusedBy(t, milterd(t), 78, want, args...)
	refusedBy(t, milterd(t), 78, want, append(args, "--check-config")...)
}

func refusedBy(t *testing.T, path string, status int, want []string, args ...string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its exit status is asked for below
	text := stderr.String()
	if code := cmd.ProcessState.ExitCode(); code != status || strings.Count(text, "\n") != 1 || stdout.Len() > 0 {
		t.Errorf("%q: exit status %d, %q, %q; want %d and one line", args, code, text, stdout.String(), status)
	}
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
}

// The lines that the tests attach the daemon with are those that are shipped.
func TestShippedMilterLines(t *testing.T) {
	main := settings(readDeploy(t, "postfix/main.cf"))
	for _, want := range []string{verifyMilter("inet:127.0.0.1:10046"), localMilter("inet:127.0.0.1:10047")} {
		if !strings.Contains(main, want) {
			t.Errorf("main.cf:\n%s\nhas not %s", main, want)
		}
	}
	master := settings(readDeploy(t, "postfix/master.cf"))
	for _, want := range submissionMilter("inet:127.0.0.1:10047") {
		if strings.Count(master, " -o "+want) != 2 {
			t.Errorf("master.cf:\n%s\nhas not twice %s", master, want)
		}
	}
}

// TestMilterdKilled kills the daemon in the middle of mails. Those of users are deferred,
// so that none leaves unsigned, also the next one of such a session. Those of the internet
// pass, as their hook has default_action=accept. After the next start all is as before.
func TestMilterdKilled(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{})
	user := open(t, s, Alice)
	internet, err := s.Postfix.Dial(t.Context(), postfixtest.MX)
	if err != nil {
		t.Fatal(err)
	}
	defer internet.Close()
	if err := internet.Open(fromOutside(Stranger)); err != nil {
		t.Fatal(err)
	}
	for c, from := range map[*postfixtest.Client]string{user: Alice, internet: Stranger} {
		if r, err := c.Mail(from); err != nil || !r.OK() {
			t.Fatalf("%v, %v", r, err)
		}
		if r, err := c.Rcpt(Bob); err != nil || !r.OK() {
			t.Fatalf("%v, %v", r, err)
		}
	}
	s.Milterd.Kill()
	const text = "From: x@home.example\nSubject: x\n\nHello.\n"
	if r, err := user.Data(text); err != nil || r.Code != 451 {
		t.Errorf("the mail of a user: %v, %v", r, err)
	}
	if r := transact(t, user, As(Alice, Alice, Dora)); r.Code != 451 {
		t.Errorf("the next one: %v", r)
	}
	if r, err := internet.Data(text); err != nil || r.Code != 250 {
		t.Errorf("the mail of the internet: %v, %v", r, err)
	}
	late, err := s.Postfix.Dial(t.Context(), postfixtest.Submission)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	for _, c := range []struct{ command, want string }{{"EHLO client.example", "250"}, {"STARTTLS", "454 4.3.0"}, {"AUTH PLAIN AGFsaWNlAHg=", "454 4.3.0"}} {
		if r, err := late.Cmd("%s", c.command); err != nil || !strings.HasPrefix(r.String(), c.want) {
			t.Errorf("%s in a session that begins now: %v, %v", c.command, r, err)
		}
	}
	if err := s.StartMilterd(t.Context()); err != nil {
		t.Fatal(err)
	}
	runSigned(t, s, bySubmission(As(Alice, Alice, Dora), record.Signed, 2))
}
