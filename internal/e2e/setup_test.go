package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// newcomer is an administrator who has a Postfix, and both daemons installed.
type newcomer struct {
	*postfixtest.Postfix
	dir     string
	flags   []string // of postern setup
	policyd *postfixtest.Daemon
	milterd *postfixtest.Daemon
	dns     *resolvertest.Server
	other   *postfixtest.Postfix // another instance, or nil
}

// shape is a Postfix as people have them, and what has to be true of it afterwards.
type shape struct {
	name   string
	main   []string
	mx     []string
	submit []string
	files  map[string]string // below --root
	flags  []string
	more   []postfixtest.Service                      // rework has their addresses as ADDR(name) and PORT(name)
	rework func(main, master string) (string, string) // of the files, as people format them
	memory int                                        // how many senders postgrey remembers when it goes
	peers  func(*testing.T, *newcomer)                // starts what Postfix asks; nil for nothing
	before func(*testing.T, *newcomer)                // asserts how mail goes without Postern; nil when nothing is said of it
	after  func(*testing.T, *newcomer)                // asserts what else is true with Postern; nil for nothing
	box    bool                                       // the daemons' settings are those of Mail-in-a-Box
	other  bool                                       // there is another instance of Postfix, which has to stay as it is
}

func shapes() []shape {
	return []shape{
		{name: "plain", before: unguarded},
		classic(),
		mailInABox(),
		besideRspamd(),
		behindFilter(),
		{name: "several instances", before: unguarded, other: true},
		{
			name:   "odd formatting and overrides",
			before: unguarded,
			mx:     []string{"smtpd_recipient_restrictions=permit_sasl_authenticated, reject_unauth_destination", "smtpd_client_restrictions="},
			submit: []string{"smtpd_sender_restrictions=$mua_sender_restrictions"},
			rework: func(main, master string) (string, string) {
				return "# of old times\n\n" + strings.ReplaceAll(main, "recipient_delimiter = +", "recipient_delimiter=\n# why\n\t+"),
					strings.NewReplacer("  -o { smtpd_client", "\n# in between\n\t-o { smtpd_client", " 0 cleanup\n", " 0 cleanup\n  -o non_smtpd_milters=$smtpd_milters\n").Replace(master)
			},
			after: func(t *testing.T, n *newcomer) {
				if err := n.Sendmail(t.Context(), "From: <"+Alice+">\nSubject: of cron\n\ntest\n", "-f", Alice, Bob); err != nil {
					t.Fatal(err)
				}
				n.delivered(t, Bob, "DKIM-Signature", "d=home.example")
			},
		},
	}
}

// A newcomer runs setup, sends mail, asks doctor and explain, and goes back.
func TestNewcomers(t *testing.T) {
	t.Parallel()
	for _, s := range shapes() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			n := newNewcomer(t, s)
			if s.before != nil {
				s.before(t, n)
			}
			before := n.files(t)
			if out, code := n.postern(t, append([]string{"setup"}, n.flags...)...); code != 0 || !strings.Contains(out, "Nothing is changed yet") {
				t.Fatalf("setup: exit %d\n%s", code, out)
			}
			n.same(t, before)
			n.attach(t, s)
			if s.memory > 0 {
				n.expect(t, postfixtest.MX, postfixtest.Mail{From: remembered, To: []string{Alice}, Client: "192.0.2.99"}, 250)
			}
			n.mails(t)
			if s.after != nil {
				s.after(t, n)
			}
			if n.other != nil {
				n.untouched(t)
			}
			n.well(t)
			n.undo(t)
			n.same(t, before)
			if s.before != nil {
				s.before(t, n)
			}
		})
	}
}

// remembered is a sender that postgrey has let pass.
const remembered = "known@away.example"

// postgreysMemory writes a database as postgrey does, with the library that it uses.
const postgreysMemory = `use BerkeleyDB; my ($folder, $sender, $recipient) = @ARGV;
my $env = BerkeleyDB::Env->new(-Home => $folder, -Flags => DB_CREATE|DB_RECOVER|DB_INIT_TXN|DB_INIT_MPOOL|DB_INIT_LOG) or die $BerkeleyDB::Error;
tie(my %db, "BerkeleyDB::Btree", -Filename => "$folder/postgrey.db", -Flags => DB_CREATE, -Env => $env) or die $BerkeleyDB::Error;
$db{"192.0.2.0/$sender/$recipient"} = (time - 100000) . "," . (time - 1000);`

func newNewcomer(t *testing.T, s shape) *newcomer {
	t.Helper()
	postfixtest.Require(t)
	dir := openDir(t)
	n := &newcomer{dir: dir, dns: nameserver(t, s.peers != nil)}
	for i := range s.more {
		s.more[i].Options = n.places(s.more[i].Options...)
	}
	var err error
	n.Postfix, err = postfixtest.Start(t.Context(), postfixtest.Config{
		Dir: mkdir(t, dir, "postfix"), Users: map[string]string{Alice: password, Bob: password},
		Mailboxes: []string{Alice, Bob, "postmaster@home.example"}, Main: append(n.places(s.main...), "mynetworks = 127.0.0.8"), MX: n.places(s.mx...), Submission: n.places(s.submit...), More: s.more,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(n.LogTail())
		}
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	n.write(t, s)
	if s.peers != nil {
		s.peers(t, n)
	}
	if s.other {
		n.instance(t)
	}
	return n
}

func mkdir(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// write writes what is not Postfix's: the files of other programs, and where our
// daemons are to listen, whom they ask and what they keep, which is not the site's.
func (n *newcomer) write(t *testing.T, s shape) {
	t.Helper()
	if s.rework != nil {
		master := readText(t, n.cf("master.cf"))
		for _, service := range s.more {
			master = strings.Replace(master, n.Addr(service.Name)+" inet", "ADDR("+service.Name+") inet", 1)
		}
		main, master := s.rework(readText(t, n.cf("main.cf")), master)
		replaceFile(t, n.cf("main.cf"), n.addresses(s, main))
		replaceFile(t, n.cf("master.cf"), n.addresses(s, master))
	}
	var addrs []string
	for range 3 {
		addr, err := postfixtest.FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, "inet:"+addr)
	}
	common := fmt.Sprintf("resolver = [%q]\nmetrics-listen = \"\"\nuser = %q\n", n.dns.Addr(), daemonUser)
	mkdir(t, n.dir, "root")
	mkdir(t, n.dir, "postern")
	// What programs call by its whole name, setup looks for below --root.
	if err := os.Symlink(n.dir, filepath.Join(mkdir(t, n.dir, filepath.Join("root", filepath.Dir(n.dir))), filepath.Base(n.dir))); err != nil {
		t.Fatal(err)
	}
	replaceFile(t, n.file("policyd.toml"), common+fmt.Sprintf("listen = [%q]\nadmin = \"unix:%s\"\ngreylist-store = \"memory:\"\n", addrs[0], n.file("policyd.sock")))
	own := fmt.Sprintf("dkim-keys = %q\n", n.file("dkim"))
	if s.box {
		own, common = "", strings.ReplaceAll(common, daemonUser, boxKeyUser)
	}
	replaceFile(t, n.file("milterd.toml"), common+fmt.Sprintf("admin = \"unix:%s\"\nmark-key-file = \"\"\n%s", n.file("milterd.sock"), own))
	for name, text := range s.files {
		mkdir(t, filepath.Join(n.dir, "root"), filepath.Dir(name))
		replaceFile(t, filepath.Join(n.dir, "root", name), n.places(text)[0])
	}
	if s.memory > 0 {
		folder := mkdir(t, n.dir, "root/var/lib/postgrey")
		if out, err := exec.CommandContext(t.Context(), "perl", "-e", postgreysMemory, folder, remembered, Alice).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if _, code := n.postern(t, "dkim", "genkey", homeDomain, "--dir", n.file("dkim"), "--type", "rsa", "--selector", "first"); code != 0 {
		t.Fatal("no key")
	}
	n.publish(t, s)
	daemons, err := binaries.Path(t.Context(), "postern-policyd")
	if _, err2 := binaries.Path(t.Context(), "postern-milterd"); errors.Join(err, err2) != nil {
		t.Fatal(errors.Join(err, err2))
	}
	n.flags = append([]string{
		"--config-directory", n.ConfigDir(), "--root", filepath.Join(n.dir, "root"), "--journal", filepath.Join(n.dir, "journal"), "--daemons", filepath.Dir(daemons),
		"--policyd-config", n.file("policyd.toml"), "--milterd-config", n.file("milterd.toml"), "--policy", addrs[0], "--verify", addrs[1], "--sign", addrs[2],
		"--admin", "unix:" + n.file("policyd.sock"), "--internet", n.Addr(postfixtest.MX), "--submission", n.Addr(postfixtest.Submission), "--user", daemonUser,
	}, s.flags...)
}

// addresses puts the addresses of further services where a text has ADDR(name) or
// PORT(name).
func (n *newcomer) addresses(s shape, text string) string {
	for _, service := range s.more {
		addr := n.Addr(service.Name)
		_, port, _ := strings.Cut(addr, ":")
		text = strings.NewReplacer("ADDR("+service.Name+")", addr, "PORT("+service.Name+")", port).Replace(text)
	}
	return text
}

func (n *newcomer) cf(name string) string   { return filepath.Join(n.ConfigDir(), name) }
func (n *newcomer) file(name string) string { return filepath.Join(n.dir, "postern", name) }

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// postern runs the command, without a terminal.
func (n *newcomer) postern(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	path, err := binaries.Path(t.Context(), "postern")
	if err != nil {
		t.Fatal(err)
	}
	var both bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stdout, cmd.Stderr = &both, &both
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return both.String(), cmd.ProcessState.ExitCode()
}

// files are those that undo has to give back.
func (n *newcomer) files(t *testing.T) map[string]string {
	all := make(map[string]string)
	names := []string{n.cf("main.cf"), n.cf("master.cf"), n.file("policyd.toml"), n.file("milterd.toml")}
	if n.other != nil {
		names = append(names, filepath.Join(n.other.ConfigDir(), "main.cf"), filepath.Join(n.other.ConfigDir(), "master.cf"))
	}
	for _, name := range names {
		all[name] = readText(t, name)
	}
	return all
}

func (n *newcomer) same(t *testing.T, before map[string]string) {
	t.Helper()
	for name, text := range n.files(t) {
		if text != before[name] {
			t.Errorf("%s is now\n%s\nand was\n%s", name, text, before[name])
		}
	}
}

// attach runs setup as where no systemd runs: it writes the settings, the daemons are
// started with them, and setup attaches them.
func (n *newcomer) attach(t *testing.T, s shape) {
	t.Helper()
	apply := append([]string{"setup", "--apply"}, n.flags...)
	if out, code := n.postern(t, apply...); code != 1 || !strings.Contains(out, "start the daemons now") {
		t.Fatalf("setup before the daemons run: exit %d\n%s", code, out)
	}
	for program, daemon := range map[string]**postfixtest.Daemon{"postern-policyd": &n.policyd, "postern-milterd": &n.milterd} {
		path, err := binaries.Path(t.Context(), program)
		if err != nil {
			t.Fatal(err)
		}
		*daemon = postfixtest.NewDaemon(t, postfixtest.DaemonConfig{Path: path, Args: []string{"--config", n.file(strings.TrimPrefix(program, "postern-") + ".toml")}})
	}
	if out, code := n.postern(t, apply...); code != 0 || s.memory > 0 && !strings.Contains(out, fmt.Sprint(s.memory, " entries of postgrey.db imported")) {
		t.Fatalf("setup: exit %d\n%s", code, out)
	}
	if out, code := n.postern(t, append([]string{"setup"}, n.flags...)...); code != 0 || !strings.Contains(out, "Nothing to change") {
		t.Errorf("setup once more: exit %d\n%s", code, out)
	}
}

func (n *newcomer) undo(t *testing.T) {
	t.Helper()
	if err := n.Reload(t.Context(), func() error {
		out, code := n.postern(t, append([]string{"setup", "--undo"}, n.flags...)...)
		if code != 0 {
			return fmt.Errorf("undo: exit %d\n%s", code, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func (n *newcomer) expect(t *testing.T, service string, m postfixtest.Mail, code int) {
	t.Helper()
	var got postfixtest.Reply
	eventually(t, func() bool { // reload is on its way
		r, err := n.Send(t.Context(), service, m)
		got = r.Final()
		return err == nil && got.Code == code
	})
	if got.Code != code {
		t.Errorf("from %s to %s as %q: %v, want %d", m.From, m.To, m.Login, got, code)
	}
}

// mails asserts what is different now, and that the commands say why.
func (n *newcomer) mails(t *testing.T) {
	t.Helper()
	n.expect(t, postfixtest.Submission, As(Alice, Bob, Stranger), 553)
	n.expect(t, postfixtest.MX, postfixtest.Mail{From: Stranger, To: []string{Alice}, Client: "192.0.2.10"}, 450)
	out, code := n.postern(t, "explain", "policy", "--admin", "unix:"+n.file("policyd.sock"), "--client", "192.0.2.10", "--sender", Stranger, "--recipient", Alice, "--context", "greylist")
	if code != 1 || !strings.Contains(out, "greylist") || !strings.Contains(out, "left") {
		t.Errorf("explain: exit %d\n%s", code, out)
	}
	n.expect(t, postfixtest.Submission, As(Alice, Alice, Bob), 250)
	n.expect(t, postfixtest.MX, postfixtest.Mail{From: Stranger, To: []string{"postmaster@home.example"}, Client: "192.0.2.10"}, 250)
	n.delivered(t, Bob, "DKIM-Signature", "d=home.example")
	n.delivered(t, "postmaster@home.example", "Authentication-Results", "mail.home.example;")
	n.judgesFrom(t)
}

// judgesFrom asserts that a From that is not the login's is recorded, and not refused.
func (n *newcomer) judgesFrom(t *testing.T) {
	t.Helper()
	m := As(Alice, Alice, Alice)
	m.Message = "From: <" + Bob + ">\nSubject: test\n\ntest\n"
	n.expect(t, postfixtest.Submission, m, 250)
	r, err := n.milterd.WaitRecord(t.Context(), func(r postfixtest.Record) bool { return r.Check == "sign" && r.Sender == Alice && r.Recipient == Alice })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(r.Steps, func(s postfixtest.Step) bool {
		return s.Reason == string(record.FromNotOwned) && s.Mode == record.ModeShadow
	}) {
		t.Errorf("the From of another is not in the record: %s", r.Raw)
	}
}

// delivered asserts that a mail that has come in has a header field once.
func (n *newcomer) delivered(t *testing.T, recipient, field, want string) {
	t.Helper()
	d, err := n.Delivered(t.Context(), recipient)
	if err != nil {
		t.Fatal(err)
	}
	if values := d.Headers(field); len(values) != 1 || !strings.Contains(values[0], want) {
		t.Errorf("the mail to %s has %d %s: %q, want one with %s", recipient, len(values), field, values, want)
	}
}

// well asserts that doctor finds nothing wrong with what setup has done. It leaves out
// whether something keeps the clock of this machine.
func (n *newcomer) well(t *testing.T) {
	t.Helper()
	out, code := n.postern(t, "doctor", "--config-directory", n.ConfigDir(), "--policyd-config", n.file("policyd.toml"), "--milterd-config", n.file("milterd.toml"),
		"--policyd-admin", "unix:"+n.file("policyd.sock"), "--milterd-admin", "unix:"+n.file("milterd.sock"), "--root", filepath.Join(n.dir, "root"), "--skip", "clock")
	if code != 0 {
		t.Errorf("doctor: exit %d\n%s", code, out)
	}
}
