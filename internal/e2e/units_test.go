package e2e

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// unitsServer makes a Debian with Postfix that asks both daemons: port 25 takes mail
// from the internet, which is greylisted and verified, and port 10025 mail of our
// own, which is signed. A milter that is away is passed over at the first, as the
// README has it, and defers mail at the second. What is taken stays in the hold queue.
const unitsServer = `
useradd --create-home alice && useradd --create-home bob
echo example.org >/etc/mailname
postconf -e 'myorigin = /etc/mailname' 'myhostname = mail.example.org' 'mydestination = $myhostname, example.org, localhost' 'mynetworks = 127.0.0.0/8'
postconf -e 'smtpd_recipient_restrictions = reject_unauth_destination, check_policy_service { inet:127.0.0.1:10045, policy_context=greylist }' 'smtpd_milters = { inet:127.0.0.1:10046, default_action=accept }'
postconf -e 'smtpd_end_of_data_restrictions = check_client_access static:HOLD'
postconf -e 'postern_sign = inet:127.0.0.1:10047' 'postern_own = permit_mynetworks, reject' 'postern_ownership = check_policy_service { inet:127.0.0.1:10045, policy_context=ownership }'
postconf -M '10025/inet=10025 inet n - y - - smtpd'
postconf -P '10025/inet/smtpd_milters=$postern_sign' '10025/inet/smtpd_recipient_restrictions=$postern_own' '10025/inet/smtpd_sender_restrictions=$postern_ownership'
ip address add 192.0.2.1/24 dev lo
install -m 644 deploy/systemd/*.service deploy/systemd/*.socket /usr/lib/systemd/system/
install -m 644 deploy/systemd/postern.sysusers /usr/lib/sysusers.d/postern.conf && systemd-sysusers
install -m 644 deploy/systemd/postern.tmpfiles /usr/lib/tmpfiles.d/postern.conf && systemd-tmpfiles --create
echo 'press@example.org alice' >/etc/postfix/sender_logins
printf '%s\n' 'owners = ["hash:/etc/postfix/sender_logins"]' 'login-domain = "example.org"' 'checks = ["ownership", "greylist"]' 'resolver = ["127.0.0.1:9"]' 'greylist-key = "network"' 'greylist-delay = "1s"' >/etc/postern/policyd.toml
printf '%s\n' 'resolver = ["127.0.0.1:9"]' >/etc/postern/milterd.toml
postern dkim genkey example.org
install -d /root/load && printf '%s\n' '#!/bin/sh' 'n=0' 'until [ $n -gt 0 ] && [ -e /root/load/stop ]; do' 'smtp-source -s 10 -m 20 -w 1 "$@" || exit' 'n=$((n + 20))' 'done' 'echo $n' >/root/load/run && chmod 755 /root/load/run
systemctl restart postfix
`

// units is the machine of these tests.
type units struct {
	firstDay
	rounds int // how often each daemon is restarted
}

// TestUnits tries what the units promise on a Debian with systemd: what the daemons
// cannot do, and that mail goes on while they are restarted, replaced and killed.
// POSTERN_TEST_RESTARTS sets how often they are restarted, twenty for the figures in
// deploy/README.md.
func TestUnits(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	rounds, err := strconv.Atoi(cmp.Or(os.Getenv("POSTERN_TEST_RESTARTS"), "2"))
	if err != nil {
		t.Fatal(err)
	}
	m := startDebian(t, debianTree(t))
	u := units{firstDay{m, m.shell(t)}, rounds}
	t.Cleanup(func() {
		if t.Failed() {
			journal, _, _ := m.shell(t).run("journalctl -n 80 --no-pager")
			t.Logf("the journal ends:\n%s", journal)
		}
	})
	u.build(t)
	u.all(t, unitsServer)
	t.Run("score", u.score)
	_, status, err := u.run("test -d /run/systemd/system")
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case status != 0:
		note(t, "the sandbox, the sockets, the credentials and the watchdog of the units were not tried: systemd cannot be booted here")
	case !u.underSystemd(t):
		return
	}
	t.Run("successors without systemd", u.successorsByHand)
}

// underSystemd runs what needs a booted machine, and reports whether all went well:
// each part leaves the daemons as the next one needs them.
func (u units) underSystemd(t *testing.T) bool {
	if !t.Run("sandbox", u.sandbox) {
		return false
	}
	u.must(t, "systemctl start "+packageUnits)
	u.introduce(t)
	u.signsByOpenSSL(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"restarts by systemd", u.restartsBySystemd},
		{"successors under systemd", u.successorsUnderSystemd},
		{"a new version that does not start", u.brokenVersion},
		{"a mistake in the settings", u.mistake},
		{"credentials", u.credentials},
		{"another user", u.anotherUser},
		{"killed and silent daemons", u.killed},
		{"every line is in the journal", u.floodsJournal},
	} {
		if !t.Run(part.name, part.run) {
			return false
		}
	}
	u.must(t, "systemctl stop "+packageUnits)
	return true
}

// build brings the programs into the machine, and the one that tries the sandbox.
func (u units) build(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", dir, "../../cmd/...", "./caged")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	command(t, "../../.ci/openssl", filepath.Join(dir, "postern-milterd"))
	for name, folder := range map[string]string{"postern": "/usr/bin/", "postern-policyd": "/usr/sbin/", "postern-milterd": "/usr/sbin/", "caged": "/usr/local/bin/"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(u.path(folder+name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// score asserts that the sandbox of the units leaves no more open than deploy/README.md
// says, in tenths of the points of systemd-analyze.
func (u units) score(t *testing.T) {
	for _, daemon := range []string{"policyd", "milterd"} {
		said := u.must(t, "systemd-analyze security --no-pager --offline=true --threshold=13 /usr/lib/systemd/system/postern-"+daemon+".service")
		lines := strings.Split(strings.TrimSpace(said), "\n")
		t.Log(lines[len(lines)-1])
	}
}

// confined is what the sandbox refuses, and whom else it would be allowed to: the
// same user without the sandbox, or root.
var confined = map[string]string{
	"read-home": "user", "list-home": "user", "write-elsewhere": "user", "run-set-uid-program": "user", "make-set-uid-program": "user",
	"write-and-execute-memory": "user", "make-memory-executable": "user", "netlink-socket": "user", "see-other-processes": "user", "write-keys": "user",
	"raw-socket": "root", "packet-socket": "root", "become-root": "root", "write-settings": "root", "write-program": "root",
	"new-user-namespace": "", "real-time": "", "kernel-setting": "", "kernel-memory": "", "mount": "",
}

// sandbox runs a program in place of each daemon, which tries what it must not do.
func (u units) sandbox(t *testing.T) {
	u.all(t, `
echo secret >/home/bob/readable && chmod 755 /home/bob
install -d -m 1777 /srv/open
install -m 4755 /usr/bin/id /usr/local/bin/set-uid-id
`)
	free := map[string]map[string]string{
		"root": tries(u.must(t, "caged")),
		"user": tries(u.must(t, "setpriv --reuid=postern --regid=postern --clear-groups caged")),
	}
	for name, who := range confined {
		if who != "" && free[who][name] != "done" {
			t.Errorf("%s: %q as %s outside of the sandbox: the test shows nothing", name, free[who][name], who)
		}
	}
	for _, daemon := range []string{"policyd", "milterd"} {
		found := u.caged(t, daemon)
		for name := range confined {
			if result, ok := found[name]; !ok || result == "done" {
				t.Errorf("%s: %s: %q", daemon, name, result)
			} else {
				t.Logf("%s: %s: %s", daemon, name, result)
			}
		}
		for _, name := range []string{"write-own-folder", "run-alarm-command"} {
			if found[name] != "done" {
				t.Errorf("%s: %s: %s", daemon, name, found[name])
			}
		}
	}
	found := u.caged(t, "policyd", "BindReadOnlyPaths=/home/bob -/home/no-one", "ReadWritePaths=/srv/open")
	for _, name := range []string{"read-home", "write-elsewhere"} {
		if found[name] != "done" {
			t.Errorf("%s with a drop-in for it: %s", name, found[name])
		}
	}
	if result := u.caged(t, "milterd")["write-keys"]; !strings.Contains(result, "read-only") {
		t.Errorf("milterd: write-keys: %s", result)
	}
	found = u.caged(t, "milterd", "ReadWritePaths=/etc/postern/dkim") // for --dkim-rotate
	if found["write-keys"] != "done" || found["write-settings"] == "done" {
		t.Errorf("with the drop-in for rotations: keys %s, settings %s", found["write-keys"], found["write-settings"])
	}
}

// caged runs the program that tries the sandbox in place of a daemon, with further
// lines in a drop-in.
func (u units) caged(t *testing.T, daemon string, lines ...string) map[string]string {
	t.Helper()
	dropIn := "/run/systemd/system/postern-" + daemon + ".service.d"
	lines = append(lines, "Type=oneshot", "Restart=no", "ExecStart=", "ExecStart=/usr/local/bin/caged", "StandardOutput=truncate:/root/caged.said")
	u.must(t, "mkdir -p "+dropIn+" && printf '%s\n' '[Service]' '"+strings.Join(lines, "' '")+"' >"+dropIn+"/caged.conf")
	u.must(t, "systemctl daemon-reload && systemctl start postern-"+daemon+".service")
	found := tries(u.must(t, "cat /root/caged.said"))
	u.must(t, "rm -r "+dropIn+" && systemctl daemon-reload && systemctl reset-failed")
	return found
}

// tries reads what caged has printed.
func tries(said string) map[string]string {
	found := make(map[string]string)
	for line := range strings.Lines(said) {
		if name, result, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			found[name] = result
		}
	}
	return found
}

// The mails of the load. The greylist knows the sender of the first.
const (
	loadIn  = "-f known@away.example -t bob@example.org 192.0.2.1:25"
	loadOut = "-f alice@example.org -t alice@example.org 127.0.0.1:10025"
)

// introduce has the greylist meet the sender of the load, until it lets mail pass.
func (u units) introduce(t *testing.T) {
	t.Helper()
	replied(t, "a stranger", u.arrive(t, "known@away.example", "bob@example.org"), "450 4.2.0 ")
	eventually(t, func() bool { return strings.HasPrefix(u.arrive(t, "known@away.example", "bob@example.org"), "250 ") })
}

// underLoad does something while mails come at a steady rate to both ports, ten a
// second to each, and asserts that every one of them was taken, verified or signed.
// options are those of smtp-source.
func (u units) underLoad(t *testing.T, options string, do func()) {
	t.Helper()
	u.must(t, "rm -f /root/load/stop; postsuper -d ALL hold")
	u.must(t, fmt.Sprintf("/root/load/run %s %s >/root/load/in 2>&1 & in=$!; /root/load/run %s %s >/root/load/out 2>&1 & out=$!", options, loadIn, options, loadOut))
	do()
	u.must(t, "touch /root/load/stop; cd /var/spool/postfix/hold")
	for _, mails := range []struct{ load, sender, field string }{
		{"in", "known@away.example", "Authentication-Results: mail.example.org;"},
		{"out", "alice@example.org", "DKIM-Signature: "},
	} {
		said, status, err := u.run("wait $" + mails.load)
		sent := strings.TrimSpace(u.must(t, "cat /root/load/"+mails.load))
		if n, _ := strconv.Atoi(sent); n == 0 || status != 0 || err != nil {
			t.Errorf("the load from %s: status %d, %v: %s%s", mails.sender, status, err, said, sent)
			continue
		}
		taken := strings.Fields(u.must(t, "grep -l -F '"+mails.sender+"' *"))
		without, _, err := u.run("grep -L -F '" + mails.field + "' " + strings.Join(taken, " "))
		if strconv.Itoa(len(taken)) != sent || without != "" || err != nil {
			t.Errorf("%s mails from %s sent, %d taken, these without %q: %s, %v", sent, mails.sender, len(taken), mails.field, without, err)
		}
		t.Logf("%s mails from %s", sent, mails.sender)
	}
	u.must(t, "cd /root/postern")
}

// pids are the main processes of the units, policyd's first.
func (u units) pids(t *testing.T) []string {
	t.Helper()
	return strings.Fields(u.must(t, "systemctl show --value --property MainPID postern-policyd postern-milterd"))
}

// configure changes a setting, so that each successor has another one, and asserts
// that it is in force after do.
func (u units) configure(t *testing.T, round int, do func()) {
	t.Helper()
	u.must(t, fmt.Sprintf("sed -i '/^greylist-retry-window/d' /etc/postern/policyd.toml && echo 'greylist-retry-window = \"%dd\"' >>/etc/postern/policyd.toml", 3+round))
	do()
	u.must(t, fmt.Sprintf("postern config policyd --set | grep -F 'greylist-retry-window = \"%dd\"'", 3+round))
}

// restartsBySystemd restarts the units while no connection may have systemd start a
// daemon: a restart is not counted by TriggerLimitBurst= of the sockets.
func (u units) restartsBySystemd(t *testing.T) {
	const dropIns = "/run/systemd/system/postern-{policyd,milterd,milterd-sign}.socket.d"
	u.must(t, "systemctl stop "+packageUnits+" && mkdir -p "+dropIns+" && tee "+dropIns+"/limit.conf <<<$'[Socket]\\nTriggerLimitIntervalSec=1h\\nTriggerLimitBurst=1'")
	u.must(t, "systemctl daemon-reload && systemctl start "+packageUnits)
	defer func() { u.must(t, "rm -r "+dropIns+" && systemctl daemon-reload") }()
	u.underLoad(t, "", func() {
		for round := range u.rounds {
			before := u.pids(t)
			u.configure(t, round, func() { u.timed(t, "systemctl restart postern-policyd") })
			u.timed(t, "systemctl restart postern-milterd")
			u.renewed(t, before)
		}
	})
}

// timed runs a command that has to succeed once some more mails have come, and logs
// how long it took.
func (u units) timed(t *testing.T, text string) {
	t.Helper()
	u.must(t, "[ $(timeout 60 grep -c -m 5 ': client=' < <(journalctl -t postfix/smtpd -o cat -n 0 -f)) = 5 ]")
	begin := time.Now()
	u.must(t, text)
	t.Logf("%s: %v", text, time.Since(begin).Round(time.Millisecond))
}

// renewed asserts that both units have other main processes, which live.
func (u units) renewed(t *testing.T, before []string) {
	t.Helper()
	now := u.pids(t)
	for i, pid := range now {
		if pid == before[i] || pid == "0" {
			t.Errorf("main processes %q, before: %q", now, before)
		}
	}
	u.must(t, "kill -0 "+strings.Join(now, " ")+" && systemctl is-active postern-policyd.service postern-milterd.service")
}

// successorsUnderSystemd has the daemons replace themselves while sessions with
// several mails go on: they come to their end in the old process.
func (u units) successorsUnderSystemd(t *testing.T) {
	u.underLoad(t, "-d", func() {
		for round := range u.rounds {
			before := u.pids(t)
			u.configure(t, round, func() { u.timed(t, "postern restart policyd") })
			u.timed(t, "postern restart milterd")
			u.renewed(t, before)
		}
	})
	u.must(t, "systemctl restart postern-policyd postern-milterd") // the unit has no process of before
	if left := strings.Fields(u.must(t, "pgrep postern-")); len(left) != 2 {
		t.Errorf("processes after a restart: %q", left)
	}
}

func (u units) successorsByHand(t *testing.T) {
	u.all(t, `
install -d -o postern -g postern /run/postern
postern-policyd --user postern </dev/null >/root/policyd.log 2>&1 &
postern-milterd --user postern </dev/null >/root/milterd.log 2>&1 &
timeout 60 grep -q -m 1 '"msg":"started"' < <(tail -n +1 -f /root/policyd.log)
timeout 60 grep -q -m 1 '"msg":"started"' < <(tail -n +1 -f /root/milterd.log)
`)
	u.introduceUnlessKnown(t)
	u.signsByOpenSSL(t)
	u.underLoad(t, "-d", func() {
		for round := range u.rounds {
			u.configure(t, round, func() { u.timed(t, "postern restart policyd") })
			u.timed(t, "postern restart milterd")
		}
	})
	u.must(t, "kill $(pgrep postern-)")
}

// signsByOpenSSL asserts that milterd, which has been root or is in the sandbox of its
// unit, has OpenSSL sign.
func (u units) signsByOpenSSL(t *testing.T) {
	t.Helper()
	replied(t, "a mail to sign", u.send(t, "127.0.0.1:10025", postfixtest.Mail{From: "alice@example.org", To: []string{"alice@example.org"}}), "250 ")
	u.must(t, "grep -q '^Uid:[[:space:]]*'$(id -u postern) /proc/$(pgrep -n postern-milterd)/status")
	u.must(t, "exec 5<>/dev/tcp/127.0.0.1/9146 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&5 && cat <&5 >/root/metrics; exec 5>&-")
	for _, line := range []string{`postern_rsa_engine{engine="openssl"} 1`, "postern_rsa_engine_fallbacks_total 0", `postern_dkim_keys{state="signing"} 2`} {
		u.must(t, "tr -d '\r' </root/metrics | grep -qxF '"+line+"'")
	}
}

// introduceUnlessKnown is introduce where no daemon has run before.
func (u units) introduceUnlessKnown(t *testing.T) {
	t.Helper()
	eventually(t, func() bool { return strings.HasPrefix(u.arrive(t, "known@away.example", "bob@example.org"), "250 ") })
}

// brokenVersion puts programs in place of the daemons that do not start, the second
// only once it has been found to be good.
func (u units) brokenVersion(t *testing.T) {
	u.underLoad(t, "-d", func() {
		before := u.pids(t)
		for _, program := range []string{"#!/bin/sh\necho broken >&2; exit 1", "#!/bin/sh\ncase $* in *--check-config*) exit 0;; esac\necho broken >&2; exit 1"} {
			for _, daemon := range []string{"policyd", "milterd"} {
				u.must(t, fmt.Sprintf("cp -a /usr/sbin/postern-%s /root/good && printf '%s\n' >/root/broken && install -m 755 /root/broken /usr/sbin/postern-%s", daemon, program, daemon))
				u.must(t, "! postern restart "+daemon)
				u.must(t, "mv /root/good /usr/sbin/postern-"+daemon)
			}
		}
		if now := u.pids(t); strings.Join(now, " ") != strings.Join(before, " ") {
			t.Errorf("main processes %q, before: %q", now, before)
		}
	})
}

// mistake stops policyd by a mistake in its settings: mail does not have it started
// for ever, and is deferred once systemd has given up.
func (u units) mistake(t *testing.T) {
	u.must(t, "cp -a /etc/postern/policyd.toml /root/ && echo 'no-such-setting = 1' >>/etc/postern/policyd.toml && ! systemctl restart postern-policyd")
	in := postfixtest.Mail{From: "known@away.example", To: []string{"bob@example.org"}}
	replied(t, "a mail meanwhile", u.send(t, "192.0.2.1:25", in), "451 4.3.5 ")
	u.must(t, "systemctl is-failed postern-policyd.socket && [ $(journalctl -u postern-policyd.service -o cat | grep -c 'unknown key no-such-setting') -le 12 ]")
	u.must(t, "cp -a /root/policyd.toml /etc/postern/policyd.toml && systemctl restart postern-policyd && systemctl is-active postern-policyd.socket")
	replied(t, "a mail afterwards", u.send(t, "192.0.2.1:25", in), "250 ")
}

// credentials gives both daemons secrets that only root can read.
func (u units) credentials(t *testing.T) {
	u.all(t, `
install -d -m 700 /root/secrets && mv /etc/postern/dkim /root/secrets/ && chown -R root:root /root/secrets
head -c 32 /dev/urandom | base64 >/root/secrets/marks && echo abcdefghijklmnopqrstuvwxyz >/root/secrets/dqs && chmod 600 /root/secrets/marks /root/secrets/dqs
cp -a /etc/postern/milterd.toml /etc/postern/policyd.toml /root/
printf '%s\n' 'dkim-keys = "dkim"' 'mark-key-file = "marks"' >>/etc/postern/milterd.toml
sed -i 's/^checks = .*/checks = ["ownership", "dnsbl", "greylist"]/' /etc/postern/policyd.toml && echo 'dqs-key-file = "dqs"' >>/etc/postern/policyd.toml
mkdir -p /run/systemd/system/postern-milterd.service.d /run/systemd/system/postern-policyd.service.d
printf '%s\n' '[Service]' LoadCredential=dkim:/root/secrets/dkim LoadCredential=marks:/root/secrets/marks >/run/systemd/system/postern-milterd.service.d/credentials.conf
printf '%s\n' '[Service]' LoadCredential=dqs:/root/secrets/dqs >/run/systemd/system/postern-policyd.service.d/credentials.conf
systemctl daemon-reload && systemctl restart postern-policyd postern-milterd
systemctl reload postern-policyd postern-milterd
postern restart policyd
postern restart milterd
`)
	u.underLoad(t, "", func() {})
	u.must(t, "postern config policyd --set | grep -F 'dqs-key-file = \"dqs\"' && postern dkim keys | grep -F example.org")
	u.must(t, "! setpriv --reuid=postern --regid=postern --clear-groups cat /run/credentials/postern-milterd.service/marks /root/secrets/marks")
	u.all(t, `
mv /root/secrets/dkim /etc/postern/ && chown -R postern:postern /etc/postern/dkim
cp -a /root/milterd.toml /root/policyd.toml /etc/postern/
rm -r /run/systemd/system/postern-milterd.service.d /run/systemd/system/postern-policyd.service.d
systemctl daemon-reload && systemctl restart postern-policyd postern-milterd
`)
}

// anotherUser has milterd run as the owner of the keys, as on a Mail-in-a-Box: it keeps
// its files in a folder of its own, and sends DMARC reports when that user asks.
func (u units) anotherUser(t *testing.T) {
	const box = "deploy/examples/mailinabox/"
	u.all(t, `
useradd --system --user-group opendkim && cp -a /etc/postern/milterd.toml /root/ && chown -R opendkim:opendkim /etc/postern/dkim
postconf -e 'recipient_delimiter = +'
install -D -m 644 `+box+`milterd.conf /run/systemd/system/postern-milterd.service.d/mailinabox.conf
printf '%s\n' 'report-store = "sqlite:/var/lib/postern/reports.db"' 'report-from = "reports@example.org"' 'admin = "unix:/run/postern-milterd/milterd.sock"' >>/etc/postern/milterd.toml
systemctl daemon-reload && systemctl restart postern-milterd
! systemctl start postern-report
postern doctor --check units,reports | grep 'postern-report.service, as user postern, may not ask postern-milterd.*fix: systemctl edit postern-report.service, and add .Service. User=opendkim and Group=opendkim'
install -D -m 644 `+box+`report.conf /run/systemd/system/postern-report.service.d/mailinabox.conf
systemctl daemon-reload && systemctl start postern-report
! postern doctor --check units,reports | grep -E '^fail|^warn +reports'
test -s /var/lib/postern-milterd/reports.db && test -s /var/lib/postern-milterd/mark.key && ! test -e /var/lib/postern/reports.db
postsuper -d ALL hold; smtp-source `+loadIn+` && smtp-source `+loadOut+`
grep -q -r -F 'Authentication-Results: mail.example.org;' /var/spool/postfix/hold && grep -q -r -F 'DKIM-Signature: ' /var/spool/postfix/hold
sed -i 's|/var/lib/postern/reports.db|/srv/reports.db|' /etc/postern/milterd.toml
! systemctl reload postern-milterd
journalctl -u postern-milterd -o cat | grep -F 'milterd.toml:2: report-store: /srv: read-only file system; a unit of systemd may write below its StateDirectory='
cp -a /etc/postern/policyd.toml /root/policyd.before && echo 'greylist-store = "sqlite:/srv/greylist.db"' >>/etc/postern/policyd.toml
! systemctl reload postern-policyd
cp -a /root/policyd.before /etc/postern/policyd.toml
cp -a /root/milterd.toml /etc/postern/ && chown -R postern:postern /etc/postern/dkim
rm -r /run/systemd/system/postern-milterd.service.d /run/systemd/system/postern-report.service.d
systemctl daemon-reload && systemctl restart postern-milterd
`)
}

// killed ends milterd as a crash does, and stops policyd so that it answers no one:
// open sessions go on as default_action says, new ones wait for systemd to start
// the daemons again.
func (u units) killed(t *testing.T) {
	u.all(t, `
mkdir -p /run/systemd/system/postern-policyd.service.d && printf '%s\n' '[Service]' WatchdogSec=2 >/run/systemd/system/postern-policyd.service.d/watchdog.conf
systemctl daemon-reload && systemctl restart postern-policyd
`)
	before := u.pids(t)
	open := make(map[string]*postfixtest.Client)
	for port, addr := range map[string]string{"in": "192.0.2.1:25", "out": "127.0.0.1:10025"} {
		c, err := u.dial(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Hello("client.example"); err != nil {
			t.Fatal(err)
		}
		open[port] = c
	}
	u.must(t, "systemctl kill --signal=STOP --kill-who=main postern-policyd && systemctl kill --signal=KILL --kill-who=main postern-milterd")
	in := postfixtest.Mail{From: "known@away.example", To: []string{"bob@example.org"}}
	out := postfixtest.Mail{From: "alice@example.org", To: []string{"alice@example.org"}}
	for _, s := range []struct {
		name string
		mail postfixtest.Mail
		want string
	}{
		{"in", in, "250 "},
		{"out", out, "451 4.7.1 "},
	} {
		r, err := open[s.name].Send(s.mail)
		if err != nil {
			t.Fatal(err)
		}
		replied(t, "a session that was open, "+s.name, r.Final().String(), s.want)
		_ = open[s.name].Close()
	}
	replied(t, "a new session, in", u.send(t, "192.0.2.1:25", in), "250 ")
	replied(t, "a new session, out", u.send(t, "127.0.0.1:10025", out), "250 ")
	u.must(t, "timeout 60 grep -q -m 1 'Watchdog timeout' < <(journalctl -u postern-policyd -o cat -n all -f)")
	u.must(t, "journalctl --sync && [ $(journalctl -u postern-policyd -o cat | grep -c '^goroutine ') -ge 2 ]") // what it was doing
	u.renewed(t, before)
	u.must(t, "rm -r /run/systemd/system/postern-policyd.service.d && systemctl daemon-reload && systemctl restart postern-policyd")
}

// floodsJournal has policyd log more than journald takes of other units.
func (u units) floodsJournal(t *testing.T) {
	u.must(t, `
mkdir -p /run/systemd/journald.conf.d && printf '%s\n' '[Journal]' RateLimitIntervalSec=1h RateLimitBurst=10 >/run/systemd/journald.conf.d/few.conf
systemctl restart systemd-journald postern-policyd
(
	exec 3<>/dev/tcp/127.0.0.1/10045
	for n in {1..300}; do
		printf '%s\n' request=smtpd_access_policy protocol_state=RCPT client_address=198.51.100.9 sender=flood@away.example recipient=bob@example.org instance=flood.$n '' >&3
		read -r action <&3 && read -r end <&3 || exit
	done
)`)
	records := strings.TrimSpace(u.must(t, `journalctl --sync && journalctl -u postern-policyd -o cat | grep -c '"instance":"flood[.]'`))
	if records != "300" {
		t.Errorf("%s of 300 records are in the journal", records)
	}
	u.must(t, "rm /run/systemd/journald.conf.d/few.conf && systemctl restart systemd-journald")
}
