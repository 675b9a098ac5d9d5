package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const (
	boxExample = "mailinabox"
	boxName    = "mail.box.example"
	boxDomain  = "box.example"
	boxAnn     = "ann@" + boxDomain
	boxBob     = "bob@" + boxDomain
	// boxKeyUser owns the box's DKIM key; no one else may read it.
	boxKeyUser = "opendkim"
)

// boxZone is the internet of these tests, beside Zones, awayZone and bankZone.
const boxZone = `none.example. A 192.0.2.50
quarantine.example. TXT "v=spf1 -all"
_dmarc.quarantine.example. TXT "v=DMARC1; p=quarantine"
lax.example. TXT "v=spf1 -all"
_dmarc.lax.example. TXT "v=DMARC1; p=none"
`

// box is a Mail-in-a-Box: its files as it writes them, both daemons from the
// shipped files, and a Postfix with the shipped lines.
type box struct{ example }

func newBox(t *testing.T) *box {
	t.Helper()
	postfixtest.Require(t)
	b := &box{example{name: boxExample, dir: openDir(t)}}
	b.places(t)
	b.writeDatabase(t)
	b.writeKey(t)
	b.startDaemons(t)
	b.startPostfix(t)
	return b
}

// places says where what the shipped files name lies in this test.
func (b *box) places(t *testing.T) {
	t.Helper()
	b.replace = []string{
		"/home/user-data", b.dir,
		"/etc/postfix/", b.dir + "/",
		"/etc/opendkim/", b.dir + "/",
		"/etc/postgrey/", b.dir + "/",
		"/run/postern-milterd/", b.dir + "/",
		"reject_unknown_sender_domain,", "", // asks the DNS of this machine
	}
	b.addresses(t)
	b.replace = append(b.replace, "127.0.0.1:12340", quotaService(t))
}

// quotaService replaces Dovecot's, which the box asks last.
func quotaService(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerQuota(c)
		}
	}()
	return l.Addr().String()
}

func answerQuota(c net.Conn) {
	defer c.Close()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if lines.Text() != "" {
			continue
		}
		if _, err := io.WriteString(c, "action=DUNNO\n\n"); err != nil {
			return
		}
	}
}

// writeDatabase writes users and aliases, with the modes that the box gives them.
func (b *box) writeDatabase(t *testing.T) {
	t.Helper()
	mail := filepath.Join(b.dir, "mail")
	if err := os.Mkdir(mail, 0o755); err != nil {
		t.Fatal(err)
	}
	fill(t, filepath.Join(mail, "users.sqlite"), b.shipped(t, "users.sql"))
	writeFile(t, b.dir, "sender-login-maps.cf", b.shipped(t, "sender-login-maps.cf"))
	writeFile(t, b.dir, "whitelist_clients", "# postgrey's\nimpatient.example\n/^mail\\d+\\.pool\\.example$/\n")
	writeFile(t, b.dir, "whitelist_recipients", "postmaster@\nabuse@\n")
}

// writeKey has OpenDKIM's own program make the key, and writes the tables as the
// box's management does.
func (b *box) writeKey(t *testing.T) {
	t.Helper()
	dir := filepath.Join(b.dir, "mail", "dkim")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "opendkim-genkey", "-b", "2048", "-r", "-s", "mail", "-D", dir).CombinedOutput(); err != nil {
		t.Fatalf("opendkim-genkey: %v\n%s", err, out)
	}
	key := filepath.Join(dir, "mail.private")
	owner, err := user.Lookup(boxKeyUser)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, key} {
		if err := os.Chown(path, atoi(t, owner.Uid), atoi(t, owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, b.dir, "SigningTable", "*@"+boxDomain+" "+boxDomain+"\n")
	writeFile(t, b.dir, "KeyTable", boxDomain+" "+boxDomain+":mail:"+key+"\n")
	txt := regexp.MustCompile(`^mail\._domainkey`).ReplaceAllString(readFile(t, filepath.Join(dir, "mail.txt")), "mail._domainkey."+boxDomain+".")
	b.dns = resolvertest.New(t, awayZone+bankZone+Zones+boxZone+txt)
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// startDaemons starts both from the shipped settings, postern-milterd with the
// command line of its unit and as the user of the key.
func (b *box) startDaemons(t *testing.T) {
	t.Helper()
	policyd := strings.Replace(b.shipped(t, "policyd.toml"), `greylist-delay = "3m"`, `greylist-delay = "1s"`, 1)
	b.policyd = b.daemon(t, "postern-policyd", "--config", writeFile(t, b.dir, "policyd.toml", policyd),
		"--greylist-store", "sqlite:"+filepath.Join(b.dir, "greylist.db"), "--admin", "unix:"+b.policydSocket())
	b.milter = b.daemon(t, "postern-milterd", append(b.milterArgs(t), "--user", boxKeyUser)...)
}

func (b *box) policydSocket() string { return filepath.Join(b.dir, "policyd.sock") }

// milterArgs is the shipped command line, with addresses in place of systemd's
// sockets, and the shipped settings.
func (b *box) milterArgs(t *testing.T) []string {
	t.Helper()
	command := regexp.MustCompile(`(?m)^ExecStart=/usr/sbin/postern-milterd (.*)$`).FindStringSubmatch(b.shipped(t, "milterd.conf"))
	if command == nil {
		t.Fatal("milterd.conf does not start the daemon")
	}
	line := strings.NewReplacer("systemd:verify", "inet:127.0.0.1:10046", "systemd:sign", "inet:127.0.0.1:10047").Replace(command[1])
	return append(strings.Fields(b.place(line)), "--config", writeFile(t, b.dir, "milterd.toml", b.shipped(t, "milterd.toml")))
}

// boxMain is what the box has in main.cf and the shipped lines rely on.
var boxMain = []string{
	"mynetworks = 127.0.0.0/8",
	"milter_default_action = accept",
	"non_smtpd_milters = $smtpd_milters",
	"smtpd_relay_restrictions = permit_sasl_authenticated,permit_mynetworks,reject_unauth_destination",
	"smtputf8_enable = no",
}

// startPostfix attaches the daemons with the lines of postern/, after switch.sh has
// made them out of the box's.
func (b *box) startPostfix(t *testing.T) {
	t.Helper()
	main, master := b.switched(t, "postern")
	main = append(main, boxMain...)
	main = append(main, "smtpd_sender_login_maps = sqlite:"+filepath.Join(b.dir, "sender-login-maps.cf"))
	b.postfix = postfixtest.New(t, postfixtest.Config{
		Hostname:   boxName,
		Domains:    []string{boxDomain},
		Mailboxes:  []string{boxAnn, boxBob},
		Users:      map[string]string{boxAnn: password, boxBob: password},
		Main:       main,
		Submission: master["submission"],
		More:       []postfixtest.Service{{Name: "smtps", Login: true, Options: master["smtps"]}},
	})
}

// switched has switch.sh put the lines of a folder in force in a main.cf and a
// master.cf of the box, and reads them back.
func (b *box) switched(t *testing.T, folder string) (main []string, master map[string][]string) {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, dir, "main.cf", readDeploy(t, "examples/"+boxExample+"/box/main.cf"))
	writeFile(t, dir, "master.cf", "smtp inet n - y - - smtpd\n"+readDeploy(t, "examples/"+boxExample+"/box/master.cf"))
	b.switchTo(t, dir, folder)
	return b.readBack(t, dir)
}

func (b *box) switchTo(t *testing.T, dir, folder string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", filepath.Join(deploy, "examples", boxExample, "switch.sh"), folder)
	cmd.Env = append(os.Environ(), "MAIL_CONFIG="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("switch.sh %s: %v\n%s", folder, err, out)
	}
}

// TestMailInABoxWhole is a box that has been switched over as its README says.
func TestMailInABoxWhole(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	t.Run("ownership", b.testOwnership)
	t.Run("lists", b.testLists)
	t.Run("import", b.testImport)
	t.Run("greylist", b.testGreylist)
	t.Run("signing", b.testSigning)
	t.Run("SpamAssassin", b.testSpamAssassin)
	t.Run("foreign key", b.testForeignKey)
}

func (b *box) testOwnership(t *testing.T) {
	for _, service := range []string{postfixtest.Submission, "smtps"} {
		b.expect(t, service, As(boxAnn, boxAnn, Stranger), 250, record.OwnerSelf)
		b.expect(t, service, As(boxAnn, boxBob, Stranger), 553, record.OwnerNotOwned)
		b.expect(t, service, As(boxAnn, "info@box.example", Stranger), 250, record.OwnerOwned)
	}
}

func (b *box) testLists(t *testing.T) {
	b.expect(t, postfixtest.MX, client("192.0.2.7", "mx.away.example", Stranger, boxAnn), 550, record.DNSBLClientListed)
	b.expect(t, postfixtest.MX, client("192.0.2.25", "mx.away.example", "offer@spam.example", boxAnn), 550, record.DNSBLSenderListed)
	// The box asks the DBL about senders alone.
	b.expect(t, postfixtest.MX, client("198.51.100.77", "mx.spam.example", Stranger, boxAnn), 450, record.GreylistNew)
}

// testImport brings postgrey's two databases over: a sender that has passed there,
// and clients that postgrey had stopped to delay.
func (b *box) testImport(t *testing.T) {
	now := time.Now().Unix()
	for name, data := range map[string]string{
		"p.txt": fmt.Sprintf(" 203.0.113.0/old@known.example/%s\n %d,%d\n", boxAnn, now-86400, now-3600),
		"c.txt": fmt.Sprintf(" 192.0.2.8\n 9,%d\n", now-3600),
	} {
		dump := writeFile(t, b.dir, name, "VERSION=3\nformat=print\ntype=btree\ndb_pagesize=4096\nHEADER=END\n"+data+"DATA=END\n")
		if out := b.postern(t, "greylist", "import", "--postgrey", dump); !strings.Contains(out, "1 entries imported, 0 skipped") {
			t.Errorf("import of %s: %s", name, out)
		}
	}
	b.expect(t, postfixtest.MX, client("203.0.113.8", "", "old@known.example", boxAnn), 250, record.GreylistKnown)
	b.expect(t, postfixtest.MX, client("192.0.2.99", "", "somebody@new.example", boxAnn), 250, record.GreylistAutoAllowed)
	b.delivered(t, boxAnn)
	b.delivered(t, boxAnn)
}

func (b *box) testGreylist(t *testing.T) {
	m := client("198.51.100.9", "mx.new.example", "first@new.example", boxAnn)
	b.expect(t, postfixtest.MX, m, 450, record.GreylistNew)
	// A client on postgrey's own list does not wait: no check has anything against it.
	b.expect(t, postfixtest.MX, client("198.51.100.88", "mail7.pool.example", "first@new.example", boxBob), 250, record.DNSBLClean)
	eventually(t, func() bool { return b.send(t, postfixtest.MX, m).Code == 250 })
	if got := b.delivered(t, boxAnn).Header(greylistHeader); !strings.Contains(got, "by postern at ") {
		t.Errorf("%s: %q", greylistHeader, got)
	}
	// A recipient that does not exist is refused for that, and leaves no trace.
	if got := b.send(t, postfixtest.MX, client("198.51.100.9", "", "first@new.example", "nobody@"+boxDomain)); got.Code != 550 {
		t.Errorf("an unknown recipient: %s", got)
	}
}

// testSigning asserts who gets the box's signature: users, programs, and the
// control panel, whose mail comes in at port 25 from the box itself.
func (b *box) testSigning(t *testing.T) {
	panel := postfixtest.Mail{From: boxAnn, To: []string{"admin@away.example"}}
	ways := map[string]func(to string) error{
		"submission":    func(to string) error { return b.accepted(t, postfixtest.Submission, As(boxAnn, boxAnn, to)) },
		"control panel": func(to string) error { m := panel; m.To = []string{to}; return b.accepted(t, postfixtest.MX, m) },
		"sendmail(1)": func(to string) error {
			return b.postfix.Sendmail(t.Context(), "From: <"+boxAnn+">\nSubject: a report\n\nAll is well.\n", "-f", boxAnn, "--", to)
		},
	}
	n := 0
	for name, send := range ways {
		n++
		to := fmt.Sprintf("reader%d@away.example", n)
		if err := send(to); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		d := b.delivered(t, to)
		if s := d.Header("DKIM-Signature"); !strings.Contains(s, "d="+boxDomain) || !strings.Contains(s, "s=mail") {
			t.Errorf("%s: signature %q", name, s)
		}
		if good, all, err := VerifyDKIM(t.Context(), b.dns, d.Data); err != nil || good != 1 || all != 1 {
			t.Errorf("%s: %d of %d signatures verify: %v", name, good, all, err)
		}
	}
}

// testSpamAssassin asserts that the shipped rules match what the daemon wrote, and
// nothing else, and that a spoof is marked for Sieve.
func (b *box) testSpamAssassin(t *testing.T) {
	const forged = "Authentication-Results: " + boxName + "; dmarc=pass; spf=pass\n" + // ours to remove
		"Authentication-Results: mx.other.example (\n " + boxName + "; spf=pass; dmarc=pass);\n spf=pass\n"
	tests := []struct {
		name, client, from, author string
		marked                     bool
		want                       []string
	}{
		{"the bank's own mail", "192.0.2.40", Banker, Banker, false, []string{"DMARC_PASS", "SPF_PASS"}},
		{"a spoof, p=reject", "192.0.2.66", Banker, Banker, true, []string{"DMARC_FAIL_REJECT", "SPF_FAIL"}},
		{"a spoof, p=quarantine", "192.0.2.66", "a@none.example", "a@quarantine.example", true, []string{"DMARC_FAIL_QUARANTINE", "SPF_NONE"}},
		{"a spoof, p=none", "192.0.2.66", Banker, "a@lax.example", false, []string{"DMARC_FAIL_NONE", "SPF_FAIL"}},
		{"no policy", "192.0.2.66", "a@none.example", "a@none.example", false, []string{"DMARC_NONE", "SPF_NONE"}},
	}
	matched := map[string]bool{}
	for _, tt := range tests {
		m := client(tt.client, "", tt.from, boxAnn)
		m.Message = forged + "From: <" + tt.author + ">\nTo: <" + boxAnn + ">\nSubject: your account\nMessage-ID: <1@bank.example>\n\nHello.\n"
		if err := b.accepted(t, postfixtest.MX, m); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		d := b.delivered(t, boxAnn)
		fields := d.Headers("Authentication-Results")
		got := spamRules(t, strings.Join(fields, "\n"))
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: SpamAssassin would find %q, want %q, in %q", tt.name, got, tt.want, fields)
		}
		if len(fields) != 2 {
			t.Errorf("%s: %q, want ours and that of the other server", tt.name, fields)
		}
		if marked := d.Header(quarantineField) != ""; marked != tt.marked {
			t.Errorf("%s: marked %v", tt.name, marked)
		}
		for _, rule := range got {
			matched[rule] = true
		}
	}
	for _, r := range spamRule.FindAllStringSubmatch(spamRuleFile(t), -1) {
		if !matched[r[1]] {
			t.Errorf("%s has matched no mail", r[1])
		}
	}
}

// The rules also read what the box's own milters write, and see through no
// administrator's exception.
func TestMailInABoxRules(t *testing.T) {
	t.Parallel()
	const field = boxName + "; spf=softfail smtp.mailfrom=a.example; dkim=none; iprev=pass policy.iprev=192.0.2.1; "
	for text, want := range map[string][]string{
		boxName + "; dmarc=pass (p=reject dis=none) header.from=a.example\n" + boxName + "; spf=pass smtp.mailfrom=a@a.example": {"DMARC_PASS", "SPF_PASS"},
		boxName + "; dmarc=fail (p=none dis=none) header.from=a.example\n" + boxName + "; spf=fail smtp.mailfrom=a@a.example":   {"DMARC_FAIL_NONE", "SPF_FAIL"},
		boxName + "; dmarc=fail (p=quarantine dis=none) header.from=a.example":                                                  {"DMARC_FAIL_QUARANTINE"},
		boxName + "; dmarc=fail (p=reject dis=none) header.from=a.example":                                                      {"DMARC_FAIL_REJECT"},
		boxName + "; dmarc=none header.from=a.example\n" + boxName + "; spf=none smtp.mailfrom=a@a.example":                     {"DMARC_NONE", "SPF_NONE"},

		field + "dmarc=fail (p=reject dis=none) header.from=a.example policy.dmarc=reject":                 nil,
		field + "dmarc=fail (p=reject sp=none dis=none) header.from=b.a.example policy.dmarc=none":         {"DMARC_FAIL_NONE"},
		field + "dmarc=fail (p=none sp=reject dis=quarantine) header.from=b.a.example policy.dmarc=reject": {"DMARC_FAIL_REJECT"},
		field + "dmarc=temperror header.from=a.example":                                                    nil,
		field + "dmarc=passable": nil,
		field + `dmarc=fail (p=none dis=none) header.from=a.example policy.dmarc="none"`: {"DMARC_FAIL_NONE"},
		"mx." + boxName + "; dmarc=pass; spf=pass":                                       nil,
		"mail-box.example; dmarc=pass":                                                   nil,
		field + "dmarc=fail (p=none dis=none) header.from=a.example policy.dmarc=none\nmx.other.example dis=x policy.dmarc=reject": {"DMARC_FAIL_NONE"},
	} {
		if got := spamRules(t, text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// spamRule is a rule as SpamAssassin reads it: name and Perl expression.
var spamRule = regexp.MustCompile(`(?m)^header (\S+) Authentication-Results =~ (/.*/m)$`)

// spamRuleFile is the shipped file with the name of this box, escaped as the README
// has it.
func spamRuleFile(t *testing.T) string {
	t.Helper()
	return strings.ReplaceAll(readDeploy(t, "examples/"+boxExample+"/postern_spf_dmarc.cf"), "HOST", strings.ReplaceAll(boxName, ".", `\.`))
}

// spamRules has Perl print, in alphabetical order, which rules match. SpamAssassin
// matches them against all fields of that name, unfolded, one a line.
func spamRules(t *testing.T, fields string) []string {
	t.Helper()
	var program strings.Builder
	program.WriteString("local $/; my $h = <STDIN>; $h =~ s/\\r?\\n[ \\t]+/ /g;\n")
	for _, r := range spamRule.FindAllStringSubmatch(spamRuleFile(t), -1) {
		fmt.Fprintf(&program, "print \"%s\\n\" if $h =~ %s;\n", r[1], r[2])
	}
	var errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "perl", "-we", program.String())
	cmd.Stdin, cmd.Stderr = strings.NewReader(fields), &errs
	out, err := cmd.Output()
	if err != nil || errs.Len() > 0 {
		t.Fatalf("perl: %v\n%s", err, errs.String())
	}
	rules := strings.Fields(string(out))
	slices.Sort(rules)
	if len(rules) == 0 {
		return nil
	}
	return rules
}

// testForeignKey asserts what an administrator sees who has forgotten milterd.conf:
// no other user may read the box's key.
func (b *box) testForeignKey(t *testing.T) {
	path, err := binaries.Path(t.Context(), "postern-milterd")
	if err != nil {
		t.Fatal(err)
	}
	for account, ok := range map[string]bool{boxKeyUser: true, "nobody": false} {
		out, err := exec.CommandContext(t.Context(), path, append(b.milterArgs(t), "--check-config", "--user", account)...).CombinedOutput()
		if ok != (err == nil) {
			t.Errorf("as %s: %v\n%s", account, err, out)
		}
		if !ok && !strings.Contains(string(out), "give the daemon's user access") {
			t.Errorf("as %s: %s", account, out)
		}
	}
}

// TestMailInABoxSwitch goes there and back: what switch.sh leaves is what the folder
// says, and "box" is what was there before.
func TestMailInABoxSwitch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	shippedLines := func(folder, file string) string {
		return settings(readDeploy(t, "examples/"+boxExample+"/"+folder+"/"+file))
	}
	writeFile(t, dir, "main.cf", "compatibility_level = 3.6\nvirtual_transport=lmtp:[127.0.0.1]:10025\n"+shippedLines("box", "main.cf"))
	writeFile(t, dir, "master.cf", "smtp inet n - y - - smtpd\npickup unix n - y 60 1 pickup\n"+readDeploy(t, "examples/"+boxExample+"/box/master.cf"))
	var b box
	others := postconf(t, dir, "-M")
	for _, folder := range []string{"watch", "postern", "postern", "box"} {
		b.switchTo(t, dir, folder)
		want := strings.Count(shippedLines(folder, "master.cf"), "policy_context=ownership")
		if got := strings.Count(postconf(t, dir, "-P"), "policy_context=ownership"); got != want {
			t.Errorf("%s: %d services ask for the ownership check, want %d", folder, got, want)
		}
		now := postconf(t, dir, "-n")
		for line := range strings.Lines(shippedLines(folder, "main.cf") + "virtual_transport = lmtp:[127.0.0.1]:10025\n") {
			if !strings.Contains(now, line) {
				t.Errorf("%s: main.cf has not %q:\n%s", folder, line, now)
			}
		}
	}
	if got := postconf(t, dir, "-M"); got != others {
		t.Errorf("there and back, master.cf is\n%s\nand was\n%s", got, others)
	}
}
