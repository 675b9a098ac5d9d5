package setup_test

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/golden"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/setup"
)

// Where users log in at port 25, setup changes the command of the unit. It keeps what the
// administrator's own drop-ins have made of it.
func TestOwnDropInsAreKept(t *testing.T) {
	postfixtest.Require(t)
	const etc, run, lib = "/etc/systemd/system/postern-milterd.service.d/", "/run/systemd/system/postern-milterd.service.d/", "/usr/lib/systemd/system/postern-milterd.service.d/"
	const unit = "/usr/sbin/postern-milterd --listen systemd:verify --listen-sign systemd:sign"
	for name, test := range map[string]struct {
		files   map[string]string
		want    []string // commands of ExecStart
		warning string
	}{
		"none": {want: []string{unit}},
		"override": {files: map[string]string{
			etc + "override.conf": "[Service]\nExecStart =\nExecStart = /usr/bin/nice \\\n# why\n  /opt/milterd --listen-verify systemd:verify\n\n[Unit]\nExecStart=/no\n",
			lib + "override.conf": "[Service]\nExecStart=/usr/bin/masked\n",
		}, want: []string{"/usr/bin/nice  /opt/milterd --listen systemd:verify"}},
		"by name, not by folder": {files: map[string]string{
			etc + "10-a.conf": "[Service]\nExecStart=\nExecStart=/a --listen-verify systemd:verify\n",
			run + "20-b.conf": "[Service]\nExecStart=\nExecStart=/b --listen-verify systemd:verify\n",
			lib + "00-c.conf": "[Service]\nExecStart=\nExecStart=/c --listen-verify systemd:verify\n",
		}, want: []string{"/b --listen systemd:verify"}},
		"only other keys": {files: map[string]string{etc + "override.conf": "[Service]\nExecStartPre=/bin/true\nNice=5\n"}, want: []string{unit}},
		"after ours": {
			files:   map[string]string{etc + "zz.conf": "[Service]\nExecStart=\nExecStart=/z --listen-verify systemd:verify\n"},
			want:    []string{unit},
			warning: "/etc/systemd/system/postern-milterd.service.d/zz.conf is read after setup.conf, and its ExecStart= has --listen-verify: write --listen",
		},
		"sockets of its own": {
			files:   map[string]string{etc + "override.conf": "[Service]\nExecStart=\nExecStart=/a --listen-verify inet:127.0.0.1:8891\n"},
			want:    []string{"/a --listen-verify inet:127.0.0.1:8891"},
			warning: "ExecStart= of postern-milterd.service has no --listen-verify systemd:verify",
		},
		"our last one": {files: map[string]string{etc + "setup.conf": "[Service]\nExecStart=\nExecStart=/old\n"}, want: []string{unit}},
	} {
		t.Run(name, func(t *testing.T) {
			root, files := t.TempDir(), fromFiles()
			files["main.cf"] += "smtpd_sasl_auth_enable = yes\n" // port 25 too
			for path, text := range test.files {
				files[path] = text
			}
			write(t, root, files)
			plan, err := setup.MakePlan(t.Context(), options(root, golden.Case{}))
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(plan.Files, func(f setup.File) bool { return strings.HasSuffix(f.Path, filepath.Join(etc, "setup.conf")) })
			if i < 0 {
				t.Fatalf("no drop-in is planned: %+v", plan.Files)
			}
			_, text, _ := strings.Cut(string(plan.Files[i].Text), "\nExecStart=\n")
			text, _, _ = strings.Cut(text, "ExecReload=")
			own := plan.Files[i].Path
			write(t, root, map[string]string{strings.TrimPrefix(own, root): string(plan.Files[i].Text)})
			if stale, after := setup.DropInTrouble(root); stale != "" || (after != "") != (name == "after ours") {
				t.Errorf("when it was just written: %q is stale, and %q after it", stale, after)
			}
			write(t, root, map[string]string{etc + "15-new.conf": "[Service]\nExecReload=/bin/true\n"})
			if stale, _ := setup.DropInTrouble(root); stale != own {
				t.Errorf("after a change the stale file is %q", stale)
			}
			if want := "ExecStart=" + strings.Join(test.want, "\nExecStart=") + "\n"; text != want {
				t.Errorf("got\n%s\nwant\n%s", text, want)
			}
			warnings := strings.ReplaceAll(strings.Join(plan.Warnings, "\n"), root, "")
			if strings.Contains(warnings, "listen-verify") != (test.warning != "") || !strings.Contains(warnings, test.warning) {
				t.Errorf("warnings:\n%s", warnings)
			}
		})
	}
}

// A later run keeps the flag, also when the networks of OpenDKIM, for which an earlier one
// wrote it, are not in Postfix's lists any more.
func TestSessionCommandsStay(t *testing.T) {
	postfixtest.Require(t)
	const command = "\nExecStart=/usr/sbin/postern-milterd --listen systemd:verify --listen-sign systemd:sign\n"
	const networks, dropIn = "internal-networks = [\"192.0.2.10\"]\n", "/etc/systemd/system/postern-milterd.service.d/setup.conf"
	for name, kept := range map[string]map[string]string{
		"the setting": {"/etc/postern/milterd.toml": networks + "listen = [\"" + setup.DefaultVerify + "\"]\n"},
		"the drop-in": {"/etc/postern/milterd.toml": networks, dropIn: "[Service]\nExecStart=" + command}, // the log says that listen has no effect
	} {
		root, files := t.TempDir(), fromFiles()
		maps.Copy(files, kept)
		write(t, root, files)
		giveTo(t, filepath.Join(root, "etc/postfix/logins"), "postfix") // a reason for a drop-in
		if text := planned(t, root, dropIn); !strings.Contains(text, command) || !strings.Contains(text, "SupplementaryGroups=postfix") {
			t.Errorf("%s: planned:\n%s", name, text)
		}
	}
}
