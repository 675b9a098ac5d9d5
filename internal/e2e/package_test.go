package e2e

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// packaged is what every package has outside of the folder of its documents.
var packaged = []string{
	"/etc/postern/milterd.toml",
	"/etc/postern/policyd.toml",
	"/usr/bin/postern",
	"/usr/lib/systemd/system/postern-milterd-sign.socket",
	"/usr/lib/systemd/system/postern-milterd.service",
	"/usr/lib/systemd/system/postern-milterd.socket",
	"/usr/lib/systemd/system/postern-policyd.service",
	"/usr/lib/systemd/system/postern-policyd.socket",
	"/usr/lib/sysusers.d/postern.conf",
	"/usr/lib/tmpfiles.d/postern.conf",
	"/usr/sbin/postern-milterd",
	"/usr/sbin/postern-policyd",
	"/usr/share/bash-completion/completions/postern",
	"/usr/share/fish/vendor_completions.d/postern.fish",
	"/usr/share/man/man1/postern.1.gz",
	"/usr/share/man/man8/postern-milterd.8.gz",
	"/usr/share/man/man8/postern-policyd.8.gz",
}

// What only one of the two kinds has.
var (
	packagedDeb = []string{"/usr/share/lintian/overrides/postern", "/usr/share/zsh/vendor-completions/_postern"}
	packagedRPM = []string{"/usr/share/licenses/postern/LICENSE", "/usr/share/zsh/site-functions/_postern"}
)

const packageDocuments = "/usr/share/doc/postern/"

// documented are some of the documents of a package.
var documented = []string{"examples/debian/README.md", "examples/policyd.toml", "postfix/main.cf"}

// makePackages runs make deb or make rpm and returns the packages that it made.
func makePackages(t *testing.T, format string, variables ...string) []string {
	t.Helper()
	dist := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "make", append([]string{"-C", "../..", format, "DIST=" + dist}, variables...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", format, err, out)
	}
	made, err := filepath.Glob(filepath.Join(dist, "postern*."+format))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestPackage makes the packages for Debian, reads what is in them, and has one of
// them installed, upgraded, removed and purged on a fresh Debian.
func TestPackage(t *testing.T) {
	postfixtest.Require(t)
	made := makePackages(t, "deb")
	if len(made) != 2 || !strings.HasSuffix(made[0], "_amd64.deb") || !strings.HasSuffix(made[1], "_arm64.deb") {
		t.Fatalf("make deb made %q", made)
	}
	t.Run("amd64", func(t *testing.T) { checkPackage(t, made[0], elf.EM_X86_64) })
	t.Run("arm64", func(t *testing.T) { checkPackage(t, made[1], elf.EM_AARCH64) })
	t.Run("lintian", func(t *testing.T) {
		args := append([]string{"--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"}, made...)
		if out, err := exec.CommandContext(t.Context(), "lintian", args...).CombinedOutput(); err != nil {
			t.Errorf("lintian: %v\n%s", err, out)
		}
	})
	t.Run("life", func(t *testing.T) { livePackage(t, made[0]) })
}

// checkPackage compares what is in a package for Debian with what should be.
func checkPackage(t *testing.T, file string, machine elf.Machine) {
	dir := t.TempDir()
	command(t, "dpkg-deb", "--extract", file, dir)
	var found []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			found = append(found, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	comparePackage(t, found, packagedDeb, "changelog.Debian.gz", "copyright")
	for _, program := range []string{"/usr/bin/postern", "/usr/sbin/postern-policyd", "/usr/sbin/postern-milterd"} {
		f, err := elf.Open(dir + program)
		if err != nil {
			t.Error(err)
			continue
		}
		if f.Machine != machine {
			t.Errorf("%s is for %v", program, f.Machine)
		}
		_ = f.Close()
	}
	settings := command(t, "dpkg-deb", "--info", file, "conffiles")
	if !slices.Equal(strings.Fields(settings), packaged[:2]) {
		t.Errorf("conffiles: %q", settings)
	}
}

// comparePackage compares the files of a package with what every package has, and
// what only its kind has.
func comparePackage(t *testing.T, found, kind []string, documents ...string) {
	t.Helper()
	want := slices.Concat(packaged, kind)
	for _, name := range slices.Concat(documented, documents) {
		want = append(want, packageDocuments+name)
	}
	for _, name := range want {
		if !slices.Contains(found, name) {
			t.Errorf("%s is missing", name)
		}
	}
	for _, name := range found {
		if !slices.Contains(want, name) && !strings.HasPrefix(name, packageDocuments) {
			t.Errorf("%s should not be there", name)
		}
	}
}

// TestRPM makes the packages for Fedora and its kin from the same description, and
// has rpm read them.
func TestRPM(t *testing.T) {
	postfixtest.Require(t)
	made := makePackages(t, "rpm")
	if len(made) != 2 || !strings.HasSuffix(made[0], ".aarch64.rpm") || !strings.HasSuffix(made[1], ".x86_64.rpm") {
		t.Fatalf("make rpm made %q", made)
	}
	for _, file := range made {
		query := func(format string) []string {
			return strings.Fields(command(t, "rpm", "--query", "--package", "--queryformat", format, file))
		}
		var found []string
		for _, entry := range query("[%{FILEMODES:perms}|%{FILEUSERNAME}|%{FILENAMES}\\n]") {
			fields := strings.Split(entry, "|")
			switch isFolder := strings.HasPrefix(fields[0], "d"); {
			case fields[1] != "root":
				t.Errorf("%s belongs to %s", fields[2], fields[1])
			case isFolder && !strings.HasPrefix(fields[2]+"/", packageDocuments):
				t.Errorf("the folder %s belongs to other packages", fields[2])
			case !isFolder:
				found = append(found, fields[2])
			}
		}
		comparePackage(t, found, packagedRPM)
		if settings := strings.Fields(command(t, "rpm", "--query", "--package", "--configfiles", file)); !slices.Equal(settings, packaged[:2]) {
			t.Errorf("configuration files: %q", settings)
		}
		if flags := query("[%{FILEFLAGS:fflags}\\n]"); !slices.Contains(flags, "cn") {
			t.Errorf("an upgrade would replace edited settings: %q", flags)
		}
		for _, scriptlet := range []string{"%{POSTIN}", "%{PREUN}", "%{POSTUN}"} {
			if len(query(scriptlet)) < 10 {
				t.Errorf("there is no %s", scriptlet)
			}
		}
	}
}

// What an administrator does between the installation and the first mail: the guide
// for Debian has it with explanations.
const attachPackage = `
cp -a /etc/postfix /root/postfix.before-postern
echo 'press@example.org alice bob' >/etc/postfix/sender_logins
printf '%s\n' 'login-domain = "example.org"' 'owners = ["hash:/etc/postfix/sender_logins"]' >/etc/postern/policyd.toml
postern-policyd --check-config --user postern
postern dkim genkey example.org
systemctl enable --now postern-policyd.socket postern-policyd.service
systemctl enable --now postern-milterd.socket postern-milterd-sign.socket postern-milterd.service
postconf -e 'smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination, reject_unlisted_recipient, check_policy_service { inet:127.0.0.1:10045, { policy_context = dnsbl, greylist }, default_action=DUNNO }'
postconf -e 'postern_ownership = check_policy_service { inet:127.0.0.1:10045, policy_context=ownership }'
postconf -P 'submission/inet/smtpd_sender_restrictions=$postern_ownership'
postconf -e 'smtpd_milters = { inet:127.0.0.1:10046, default_action=accept }' 'non_smtpd_milters = { inet:127.0.0.1:10047, default_action=accept }'
postconf -P 'submission/inet/smtpd_milters=inet:127.0.0.1:10047' 'submission/inet/milter_macro_daemon_name=ORIGINATING'
systemctl restart postfix
`

// packageUnits are the units of a package, in the order in which they are stopped.
const packageUnits = "postern-policyd.socket postern-policyd.service postern-milterd.socket postern-milterd-sign.socket postern-milterd.service"

// livePackage is the life of a package: an older one is installed, mail flows
// through it, it is upgraded, removed and purged.
func livePackage(t *testing.T, newer string) {
	older := makePackages(t, "deb", "VERSION=0.0.9", "ARCHS=amd64")
	if len(older) != 1 {
		t.Fatalf("make deb ARCHS=amd64 made %q", older)
	}
	m := startDebian(t, debianTree(t))
	d := firstDay{m, m.shell(t)}
	t.Cleanup(func() {
		if t.Failed() {
			journal, _, _ := m.shell(t).run("journalctl -n 60 --no-pager")
			t.Logf("the journal ends:\n%s", journal)
		}
	})
	d.all(t, "export DEBIAN_FRONTEND=noninteractive"+firstDayServer)
	_, status, err := d.run("test -d /run/systemd/system")
	if err != nil {
		t.Fatal(err)
	}
	booted := status == 0

	d.install(t, older[0])
	if booted {
		d.must(t, "! systemctl is-active "+packageUnits+" | grep -qv inactive && ! systemctl is-enabled "+packageUnits+" | grep -qv disabled")
	}
	d.open(t)

	d.all(t, attachPackage)
	d.guarded(t)
	d.logged(t, "postern-milterd", `"reason":"signed"`)

	const pids = "systemctl show --value --property MainPID postern-policyd postern-milterd"
	before := ""
	if booted {
		before = d.must(t, pids)
	}
	settings := d.must(t, "sha256sum /etc/postern/policyd.toml /etc/postern/dkim/*/*")
	d.install(t, newer)
	if after := d.must(t, "sha256sum /etc/postern/policyd.toml /etc/postern/dkim/*/*"); after != settings {
		t.Errorf("the upgrade changed settings or keys:\n%s%s", settings, after)
	}
	if booted {
		d.must(t, "! systemctl is-active "+packageUnits+" | grep -v '^active'")
		now := strings.Fields(d.must(t, pids))
		for i, pid := range strings.Fields(before) {
			if pid == now[i] || now[i] == "0" {
				t.Errorf("after the upgrade: %s, before: %s", now, before)
			}
		}
	}
	d.guarded(t)
	if booted {
		d.keepsOld(t, newer)
	}

	d.must(t, "cp /root/postfix.before-postern/main.cf /root/postfix.before-postern/master.cf /etc/postfix/ && systemctl restart postfix")
	if !booted {
		d.must(t, "systemctl stop "+packageUnits)
	}
	t.Log(d.must(t, "apt-get -qq remove postern"))
	d.must(t, "test -s /etc/postern/policyd.toml && test -s /var/lib/postern/greylist.db && ls /etc/postern/dkim/*/*.private")
	if left := d.must(t, "find /usr /etc/systemd -name '*postern*' -not -path '/usr/local/go/*'; ! pgrep postern-"); left != "" {
		t.Errorf("left behind by remove:\n%s", left)
	}
	d.open(t)
	t.Log(d.must(t, "apt-get -qq purge postern"))
	d.must(t, "! ls -d /etc/postern /var/lib/postern /run/postern 2>&1 | grep -v 'No such file' && ! dpkg-query -W postern")
	d.open(t)
}

// keepsOld installs a package while the settings have a mistake, with which no new
// process could start.
func (d firstDay) keepsOld(t *testing.T, file string) {
	t.Helper()
	const pids = "systemctl show --value --property MainPID postern-policyd postern-milterd"
	before := strings.Fields(d.must(t, pids))
	d.must(t, "cp -a /etc/postern/policyd.toml /root/policyd.toml && echo 'no-such-setting = 1' >>/etc/postern/policyd.toml")
	said := d.must(t, "apt-get -qq --reinstall install '/root/"+filepath.Base(file)+"' 2>&1")
	for _, want := range []string{"no-such-setting", "postern-policyd still runs the old version", "postern-milterd: a new process serves"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in what apt shows:\n%s", want, said)
		}
	}
	if after := strings.Fields(d.must(t, pids)); after[0] != before[0] || after[1] == before[1] {
		t.Errorf("processes after an upgrade with a mistake for postern-policyd: %q, before: %q", after, before)
	}
	d.must(t, "! systemctl reload postern-policyd") // the mistake is shown, not passed over
	d.guarded(t)
	d.must(t, "cp -a /root/policyd.toml /etc/postern/policyd.toml && systemctl reload postern-policyd")
}

// all runs commands, one a line.
func (d firstDay) all(t *testing.T, lines string) {
	t.Helper()
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		d.must(t, line)
	}
}

// install brings a package into the machine and has apt install it.
func (d firstDay) install(t *testing.T, file string) {
	t.Helper()
	there := "/root/" + filepath.Base(file)
	d.must(t, "true") // the machine is there
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.path(there), data, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Log(d.must(t, "apt-get -qq install '"+there+"'"))
	version := strings.Split(filepath.Base(file), "_")[1]
	if got := d.must(t, "dpkg-query -W -f '${Version} ${db:Status-Status}' postern"); got != version+" installed" {
		t.Errorf("dpkg says %q after the installation of %s", got, version)
	}
}

// guarded is what mails find once both daemons are attached.
func (d firstDay) guarded(t *testing.T) {
	t.Helper()
	replied(t, "alice as herself", d.submit(t, "alice", "wonder", "alice@example.org", "bob@example.org"), "250 ")
	replied(t, "bob as the press", d.submit(t, "bob", "builder", "press@example.org", "alice@example.org"), "250 ")
	replied(t, "alice as bob", d.submit(t, "alice", "wonder", "bob@example.org", "alice@example.org"), "553 5.7.1 ")
	replied(t, "a stranger", d.arrive(t, "dave@away.example", "alice@example.org"), "450 4.2.0 ")
}
