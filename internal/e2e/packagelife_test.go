package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/manual"
)

// packageGuide is the page on the package.
const packageGuide = "deploy/examples/package/README.md"

// packageUnits are the units of a package, in the order in which they are stopped.
const packageUnits = "postern-policyd.socket postern-policyd.service postern-milterd.socket postern-milterd-sign.socket postern-milterd.service"

// packageLife is the life of a package on a machine.
type packageLife struct {
	firstDay
	older, newer string
	foreign      string // lies beside them, as make deb makes it, and is for other machines
	booted       bool
	settings     string             // checksums of what was edited
	pids         []string           // of policyd and milterd
	sent         func(t *testing.T) // ends what is sent during an upgrade
}

// packageTables is a table of Postfix that only its group may read, as those with a
// password are. The unit of postern-policyd has that group, its user has not.
const packageTables = `printf 'all@example.org alice@example.org, bob@example.org\n' >/etc/postfix/virtual
chown root:postfix /etc/postfix/virtual && chmod 0640 /etc/postfix/virtual
postconf -e 'virtual_alias_maps = texthash:/etc/postfix/virtual'
`

// livePackage follows the page on the package: an older one is installed, mail flows
// through it, it is upgraded, removed and purged.
func livePackage(t *testing.T, newer, foreign string) {
	older := makePackages(t, "deb", "VERSION=0.0.9", "ARCHS=amd64", "RSA_ENGINE=go")
	if len(older) != 1 {
		t.Fatalf("make deb ARCHS=amd64 made %q", older)
	}
	m := startDebian(t, debianTree(t))
	l := &packageLife{firstDay: firstDay{m, m.shell(t)}, older: older[0], newer: newer, foreign: foreign}
	t.Cleanup(func() {
		if t.Failed() {
			journal, _, _ := m.shell(t).run("journalctl -n 60 --no-pager")
			t.Logf("the journal ends:\n%s", journal)
		}
	})
	l.all(t, "export DEBIAN_FRONTEND=noninteractive"+firstDayServer+"mkdir /root/download\ncd /root/download")
	_, status, err := l.run("test -d /run/systemd/system")
	if err != nil {
		t.Fatal(err)
	}
	if l.booted = status == 0; l.booted { // by hand, the daemons have no unit
		l.all(t, packageTables)
	}
	page, err := manual.Read("../..", packageGuide)
	if err != nil {
		t.Fatal(err)
	}
	l.download(t, l.older)
	before, looked := time.Now(), time.Duration(0)
	look := func(f func(*testing.T)) func(*testing.T) {
		return func(t *testing.T) {
			start := time.Now()
			f(t)
			looked += time.Since(start)
		}
	}
	l.follow(t, page.Text, map[string]func(*testing.T){
		"installed": look(l.installed),
		"keys":      look(l.keys),
		"watched": func(t *testing.T) {
			start := time.Now()
			replied(t, "the first mail", l.submit(t, "alice", "wonder", "alice@example.org", "bob@example.org"), "250 ")
			l.logged(t, "postern-policyd", `"mode":"shadow"`)
			noteFirstMail(t, time.Since(before)-looked)
			replied(t, "alice as bob", l.submit(t, "alice", "wonder", "bob@example.org", "alice@example.org"), "250 ")
			l.logged(t, "postern-policyd", `"sender":"bob@example.org"`) // the guide looks for it now
			looked += time.Since(start)
		},
		"judged": func(t *testing.T) {
			replied(t, "a mail", l.submit(t, "alice", "wonder", "alice@example.org", "bob@example.org"), "250 ")
			l.logged(t, "postern-milterd", `"reason":"signed"`)
			l.judged(t)
		},
		"upgraded": l.upgraded,
		"back":     l.back,
		"removed":  l.removed,
		"purged":   l.purged,
	})
	if l.booted {
		l.unpacked(t)
	}
}

// noteFirstMail reports how long a machine that has all its packages and no Postern
// needs from apt install to the first mail that was judged.
func noteFirstMail(t *testing.T, took time.Duration) {
	t.Helper()
	note(t, fmt.Sprintf("from apt install to the first mail judged: %.1f s", took.Seconds()))
}

// download puts the packages where the page has them.
func (l *packageLife) download(t *testing.T, file string) {
	t.Helper()
	l.must(t, "rm -f postern_*")
	for _, file := range []string{file, l.foreign} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(l.path("/root/download/"+filepath.Base(file)), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l.must(t, "sha256sum postern_* >SHA256SUMS")
}

// hasVersion asks dpkg and the programs which package is installed.
func (l *packageLife) hasVersion(t *testing.T, file string) {
	t.Helper()
	version := strings.Split(filepath.Base(file), "_")[1]
	if got := l.must(t, "dpkg-query -W -f '${Version} ${db:Status-Status}' postern"); got != version+" installed" {
		t.Errorf("dpkg says %q after the installation of %s", got, version)
	}
	release, _, _ := strings.Cut(version, "-")
	if got := l.must(t, "postern version"); !strings.HasPrefix(got, "postern "+release) {
		t.Errorf("postern says it is %q after the installation of %s", got, version)
	}
}

func (l *packageLife) installed(t *testing.T) {
	l.hasVersion(t, l.older)
	if l.booted {
		l.must(t, "! systemctl is-active "+packageUnits+" | grep -qv inactive && ! systemctl is-enabled "+packageUnits+" | grep -qv disabled")
	}
	l.open(t)
}

// keys starts the daemons by hand where there is no systemd: setup writes their settings,
// and says that it changes Postfix once they run.
func (l *packageLife) keys(t *testing.T) {
	if !l.booted {
		l.must(t, "! postern setup --apply --shadow && systemctl enable --now "+packageUnits)
	}
}

// judged looks at mails once both daemons are attached, then brings the new package and
// goes on sending while it is installed.
func (l *packageLife) judged(t *testing.T) {
	l.must(t, "timeout 60 bash -c 'until postern owners check press@example.org bob; do :; done'") // the table is noticed by itself
	l.guarded(t, "carla")
	l.settings = l.must(t, "sha256sum /etc/postern/policyd.toml /etc/postern/dkim/*/*")
	if l.booted {
		l.pids = l.running(t)
	}
	l.download(t, l.newer)
	l.sent = l.sending(t)
}

// running returns the processes of the daemons.
func (l *packageLife) running(t *testing.T) []string {
	t.Helper()
	return strings.Fields(l.must(t, "systemctl show --value --property MainPID postern-policyd postern-milterd"))
}

// replaced reports daemons that have not been replaced since pids was read.
func (l *packageLife) replaced(t *testing.T) {
	t.Helper()
	now := l.running(t)
	for i, pid := range l.pids {
		if now[i] == pid || now[i] == "0" {
			t.Errorf("processes: %q, before: %q", now, l.pids)
		}
	}
	l.pids = now
}

// sending sends one mail after the other until it is told to stop: each has to be
// judged and signed.
func (l *packageLife) sending(t *testing.T) (stop func(*testing.T)) {
	t.Helper()
	const signed = `"reason":"signed"`
	before := strings.TrimSpace(l.must(t, "journalctl -u postern-milterd -o cat | grep -c -F '"+signed+"'"))
	ctx, cancel := context.WithCancel(t.Context())
	var wrong []string
	n, ended := 0, make(chan struct{})
	go func() {
		defer close(ended)
		for ; ctx.Err() == nil; n++ {
			reply, err := l.transaction(t.Context(), submissionPort, submission("alice", "wonder", "alice@example.org", "bob@example.org"))
			if err != nil || !strings.HasPrefix(reply, "250 ") {
				wrong = append(wrong, fmt.Sprintf("mail %d: %q, %v", n, reply, err))
			}
		}
	}()
	return func(t *testing.T) {
		t.Helper()
		cancel()
		<-ended
		if len(wrong) > 0 {
			t.Fatalf("%d of %d mails during the upgrade failed: %q", len(wrong), n, wrong[:min(5, len(wrong))])
		}
		t.Logf("%d mails during the upgrade", n)
		var all int
		if _, err := fmt.Sscan(before, &all); err != nil {
			t.Fatal(err)
		}
		l.journal(t, all+n, signed, "-u postern-milterd")
	}
}

func (l *packageLife) upgraded(t *testing.T) {
	l.sent(t)
	l.hasVersion(t, l.newer)
	if after := l.must(t, "sha256sum /etc/postern/policyd.toml /etc/postern/dkim/*/*"); after != l.settings {
		t.Errorf("the upgrade changed settings or keys:\n%s%s", l.settings, after)
	}
	l.guarded(t, "dora")
	if !l.booted {
		return
	}
	l.must(t, "! systemctl is-active "+packageUnits+" | grep -v '^active'")
	l.replaced(t)
	l.must(t, "for daemon in policyd milterd; do /etc/needrestart/restart.d/postern-$daemon.service || exit; done")
	l.replaced(t)
	l.keepsOldWithBadSettings(t)
	l.keepsOldWithBadPrograms(t)
	l.runsAfterFailedSetup(t)
	l.must(t, "systemctl enable --now postern-report.timer") // undo stops it with the milter
}

// runsAfterFailedSetup has the milter fail to start once, in a run of setup that restarts
// it. The run is taken back, and the daemon runs with what it had before.
func (l *packageLife) runsAfterFailedSetup(t *testing.T) {
	t.Helper()
	const once = "/etc/systemd/system/postern-milterd.service.d/once.conf"
	l.must(t, `touch /run/once && mkdir -p "$(dirname `+once+`)"
printf '[Service]\nExecStartPre=+/bin/sh -c "! rm /run/once"\n' >`+once+" && systemctl daemon-reload")
	if out, status, err := l.run("postern setup --apply --yes"); status != 2 || err != nil || !strings.Contains(out, "taking everything back") {
		t.Errorf("setup with a milter that does not start: status %d, %v\n%s", status, err, out)
	}
	l.must(t, "systemctl is-active postern-milterd.service && ! test -e /run/once && ! grep '^from-ownership' /etc/postern/milterd.toml")
	l.guarded(t, "erin")
	l.must(t, `rm -r "$(dirname `+once+`)" && systemctl daemon-reload`)
}

// keepsOldWithBadSettings installs the package while the settings have a mistake, with
// which no new process could start.
func (l *packageLife) keepsOldWithBadSettings(t *testing.T) {
	t.Helper()
	before := l.running(t)
	l.must(t, "cp -a /etc/postern/policyd.toml /root/policyd.toml && echo 'no-such-setting = 1' >>/etc/postern/policyd.toml")
	said := l.must(t, "apt-get -qq --reinstall install ./postern_*_amd64.deb 2>&1")
	for _, want := range []string{"no-such-setting", "postern-policyd still runs the old version", "postern-milterd: a new process serves"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in what apt shows:\n%s", want, said)
		}
	}
	if after := l.running(t); after[0] != before[0] || after[1] == before[1] {
		t.Errorf("processes after an upgrade with a mistake for postern-policyd: %q, before: %q", after, before)
	}
	l.must(t, "! systemctl reload postern-policyd") // the mistake is shown, not passed over
	l.guarded(t, "emil")
	l.must(t, "cp -a /root/policyd.toml /etc/postern/policyd.toml && systemctl reload postern-policyd")
}

// keepsOldWithBadPrograms upgrades to a version whose daemons cannot run: one ends at
// once, the other one is no program. It has other default settings too: those of the
// edited file are not taken. A good version after it repairs that.
func (l *packageLife) keepsOldWithBadPrograms(t *testing.T) {
	t.Helper()
	l.all(t, `
dpkg-deb --raw-extract postern_*_amd64.deb /root/bad
sed -i 's/^Version: .*/&.bad/' /root/bad/DEBIAN/control
printf '#!/bin/sh\necho this version is broken >&2\nexit 1\n' >/root/bad/usr/sbin/postern-policyd
truncate --size=4096 /root/bad/usr/sbin/postern-milterd
sed -i '1i # other defaults' /root/bad/etc/postern/policyd.toml /root/bad/etc/postern/milterd.toml
dpkg-deb --build --root-owner-group -Znone /root/bad /root/bad.deb
`)
	l.pids = l.running(t)
	const keepEdited = "apt-get -qq -o Dpkg::Options::=--force-confold install "
	said := l.must(t, keepEdited+"/root/bad.deb 2>&1")
	for _, want := range []string{"this version is broken", "postern-policyd still runs the old version", "postern-milterd still runs the old version"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in what apt shows:\n%s", want, said)
		}
	}
	if now := l.running(t); strings.Join(now, " ") != strings.Join(l.pids, " ") {
		t.Errorf("processes after an upgrade to broken programs: %q, before: %q", now, l.pids)
	}
	l.must(t, "! systemctl is-active "+packageUnits+" | grep -v '^active'")
	l.guarded(t, "frank")
	l.must(t, "grep 'other defaults' /etc/postern/milterd.toml && ! grep 'other defaults' /etc/postern/policyd.toml")
	t.Log(l.must(t, keepEdited+"--allow-downgrades ./postern_*_amd64.deb"))
	l.replaced(t)
	l.guarded(t, "greta")
}

// back looks at mails once Postern is off Postfix, and attaches it again: the removal of
// the package takes it off too.
func (l *packageLife) back(t *testing.T) {
	l.open(t)
	l.must(t, "diff -r /etc/postfix /root/postfix.before-postern")
	if l.booted {
		l.must(t, "! systemctl is-enabled postern-report.timer && ! systemctl is-active postern-report.timer")
	}
	if l.booted {
		l.staysAsItWas(t)
	}
	l.must(t, "postern setup --apply")
	if !l.booted {
		l.must(t, "systemctl stop "+packageUnits)
	}
}

// staysAsItWas has a first run of setup fail where the milter and the timer of reports run
// already, and the milter is not enabled. All of them are then as they were.
func (l *packageLife) staysAsItWas(t *testing.T) {
	t.Helper()
	const how = "for unit in " + packageUnits + " postern-report.timer; do echo $unit $(systemctl is-enabled $unit) $(systemctl is-active $unit); done"
	l.must(t, "systemctl start postern-milterd.socket postern-milterd-sign.socket postern-milterd.service && systemctl enable --now postern-report.timer")
	before := l.must(t, how)
	const broken = "/run/systemd/system/postern-policyd.service.d"
	l.must(t, "mkdir -p "+broken+" && printf '[Service]\\nExecStartPre=/bin/false\\n' >"+broken+"/broken.conf && systemctl daemon-reload")
	if out, status, err := l.run("postern setup --apply --yes"); status != 2 || err != nil || !strings.Contains(out, "taking everything back") {
		t.Errorf("setup with a daemon that does not start: status %d, %v\n%s", status, err, out)
	}
	if after := l.must(t, how); after != before {
		t.Errorf("before the run that failed:\n%safter it:\n%s", before, after)
	}
	l.must(t, "rm -r "+broken+" && systemctl daemon-reload && systemctl reset-failed && systemctl disable --now postern-report.timer postern-milterd.socket postern-milterd-sign.socket postern-milterd.service")
}

func (l *packageLife) removed(t *testing.T) {
	l.must(t, "diff -r /etc/postfix /root/postfix.before-postern")
	l.must(t, "test -s /etc/postern/policyd.toml && test -s /var/lib/postern/greylist.db && ls /etc/postern/dkim/*/*.private")
	if left := l.must(t, "find /usr /etc/systemd -name '*postern*' -not -path '/usr/local/go/*'; ! pgrep postern-"); left != "" {
		t.Errorf("left behind by remove:\n%s", left)
	}
	l.open(t)
	l.must(t, "mkdir /var/lib/postern-milterd /run/postern-milterd") // where postern-milterd runs as another user
}

func (l *packageLife) purged(t *testing.T) {
	l.must(t, "! ls -d /etc/postern /var/lib/postern /var/lib/postern-milterd /run/postern /run/postern-milterd 2>&1 | grep -v 'No such file' && ! dpkg-query -W postern")
	l.open(t)
}

// unpacked starts the daemons from the archive for systems without dpkg and rpm.
func (l *packageLife) unpacked(t *testing.T) {
	t.Helper()
	archives := releasedFiles(t, "postern_*_linux_amd64.tar.gz")
	l.download(t, archives[0])
	l.all(t, `
tar -xzf postern_*_linux_amd64.tar.gz -C /usr/local --strip-components=1
hash -r
systemd-sysusers
systemd-tmpfiles --create
systemctl daemon-reload
postern dkim genkey example.org
echo 'checks = ["greylist"]' >/etc/postern/policyd.toml
systemctl start postern-policyd.socket postern-policyd.service
systemctl start postern-milterd.socket postern-milterd-sign.socket postern-milterd.service
[ "$(readlink /proc/$(systemctl show --value --property MainPID postern-policyd)/exe)" = /usr/local/sbin/postern-policyd ]
`)
}

// all runs commands, one a line.
func (d firstDay) all(t *testing.T, lines string) {
	t.Helper()
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		d.must(t, line)
	}
}

// guarded is what mails find once both daemons are attached. The stranger has not been
// here before.
func (d firstDay) guarded(t *testing.T, stranger string) {
	t.Helper()
	replied(t, "alice as herself", d.submit(t, "alice", "wonder", "alice@example.org", "bob@example.org"), "250 ")
	replied(t, "bob as the press", d.submit(t, "bob", "builder", "press@example.org", "alice@example.org"), "250 ")
	replied(t, "alice as bob", d.submit(t, "alice", "wonder", "bob@example.org", "alice@example.org"), "553 5.7.1 ")
	replied(t, "a stranger", d.arrive(t, stranger+"@away.example", "alice@example.org"), "450 4.2.0 ")
}
