package setup_test

import (
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/golden"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/setup"
)

// fromFiles is a site whose users own addresses by a table that only Postfix's group may
// read.
func fromFiles() map[string]string {
	return map[string]string{
		"main.cf": "compatibility_level = 3.6\nmyhostname = mail.example.org\nmydestination = $myhostname\nmyorigin = example.org\nalias_maps =\n" +
			"smtpd_sender_login_maps = hash:ROOT/etc/postfix/logins, hash:ROOT/etc/postfix/virtual\nvirtual_alias_maps = hash:ROOT/etc/postfix/virtual\n",
		"master.cf": "smtp inet n - y - - smtpd\nsubmission inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes\n",
		"logins":    "press@example.org alice\n",
		"virtual":   "sales@example.org alice\n",
		"/lib/systemd/system/postern-policyd.service": "[Service]\nExecStart=/usr/sbin/postern-policyd --listen systemd:policy\n",
		"/lib/systemd/system/postern-milterd.service": "[Service]\nExecStart=/usr/sbin/postern-milterd --listen-verify systemd:verify --listen-sign systemd:sign\n",
	}
}

func giveTo(t *testing.T, path, name string) {
	t.Helper()
	group, err := user.LookupGroup(name)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, -1, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
}

// planned makes a plan, and returns the new text of the files whose name ends so.
func planned(t *testing.T, root, name string) string {
	t.Helper()
	plan, err := setup.MakePlan(t.Context(), options(root, golden.Case{}))
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, f := range plan.Files {
		if strings.HasSuffix(f.Path, name) {
			text += string(f.Text)
		}
		if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.Path, f.Text, f.Mode); err != nil {
			t.Fatal(err)
		}
	}
	return strings.ReplaceAll(text, root, "ROOT")
}

// Both daemons judge by the same tables. What the administrator has decided is kept, and
// without the tables, or without the mail of everyone, nothing is planned.
func TestFromOwnership(t *testing.T) {
	postfixtest.Require(t)
	const tables = "owners = [\"hash:ROOT/etc/postfix/logins\", \"hash:ROOT/etc/postfix/virtual\"]\n"
	for name, test := range map[string]struct {
		files map[string]string
		want  string // in milterd.toml; "" if nothing is planned
		not   string
	}{
		"Postfix's tables": {want: "from-ownership = \"shadow\"\n" + tables, not: "owner-aliases"},
		"no table of logins": {
			files: map[string]string{"main.cf": fromFiles()["main.cf"] + "smtpd_sender_login_maps =\n"},
			want:  "owner-aliases = [\"hash:ROOT/etc/postfix/virtual\"]\n",
		},
		"policyd's own": {
			files: map[string]string{"/etc/postern/policyd.toml": "owners = [\"static:x\"]\nowner-exempt = [\"boss\"]\nowners-unauthenticated = \"reject\"\n"},
			want:  "from-ownership = \"shadow\"\nowners = [\"static:x\"]\nowner-exempt = [\"boss\"]\n",
			not:   "unauthenticated",
		},
		"checks in one text": {
			files: map[string]string{"/etc/postern/policyd.toml": "checks = \"dnsbl, ownership\"\n"},
			want:  "from-ownership = \"shadow\"\n" + tables,
		},
		"decided":               {files: map[string]string{"/etc/postern/milterd.toml": "from-ownership = \"off\"\n"}},
		"enforced":              {files: map[string]string{"/etc/postern/milterd.toml": "from-ownership = \"enforce\"\nowners = [\"static:x\"]\n"}},
		"no ownership check":    {files: map[string]string{"/etc/postern/policyd.toml": "checks = [\"dnsbl\"]\n"}},
		"a table of other type": {files: map[string]string{"main.cf": fromFiles()["main.cf"] + "smtpd_sender_login_maps = nis:x, hash:ROOT/etc/postfix/logins\n"}},
		"no one logs in":        {files: map[string]string{"master.cf": "smtp inet n - y - - smtpd\n"}},
		"unseen logins":         {files: map[string]string{"master.cf": fromFiles()["master.cf"] + "25 inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes -o smtpd_milters=\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, files := t.TempDir(), fromFiles()
			for name, text := range test.files {
				files[name] = text
			}
			write(t, root, files)
			text := planned(t, root, "milterd.toml")
			if !strings.Contains(text, test.want) || test.not != "" && strings.Contains(text, test.not) ||
				test.want == "" && strings.Contains(text, "shadow") {
				t.Errorf("planned:\n%s\nwant:\n%s", text, test.want)
			}
			if again := planned(t, root, ""); again != "" {
				t.Errorf("the next run plans again:\n%s", again)
			}
		})
	}
}

// The unit of the milter daemon may not read the tables of Postfix's group.
func TestFromOwnershipTablesAreReadable(t *testing.T) {
	postfixtest.Require(t)
	for _, mode := range []string{"", "from-ownership = \"enforce\"\nowners = [\"static:x\"]\n", "from-ownership = \"off\"\n"} {
		root, files := t.TempDir(), fromFiles()
		if mode != "" {
			files["/etc/postern/milterd.toml"] = mode
		}
		write(t, root, files)
		giveTo(t, filepath.Join(root, "etc/postfix/logins"), "postfix")
		giveTo(t, filepath.Join(root, "etc/postfix/virtual"), "mail")
		lines := strings.Split(planned(t, root, "postern-milterd.service.d/setup.conf"), "\n")
		if slices.Contains(lines, "SupplementaryGroups=postfix mail") != !strings.Contains(mode, "off") {
			t.Errorf("%s: %q", mode, lines)
		}
		_ = os.RemoveAll(filepath.Join(root, "etc/systemd"))
		if lines := strings.Split(planned(t, root, "postern-policyd.service.d/setup.conf"), "\n"); !slices.Contains(lines, "SupplementaryGroups=mail") {
			t.Errorf("%s: policyd %q", mode, lines)
		}
	}
}

// So are those that the administrator has named in policyd's own settings.
func TestOwnTablesAreReadable(t *testing.T) {
	postfixtest.Require(t)
	root, files := t.TempDir(), fromFiles()
	files["/etc/postern/policyd.toml"] = "owners = [\"hash:ROOT/etc/postfix/own\"]\nowner-aliases = []\n"
	files["/etc/postfix/own"] = "a@example.org a\n"
	write(t, root, files)
	giveTo(t, filepath.Join(root, "etc/postfix/own"), "mail")
	for _, daemon := range []string{"policyd", "milterd"} {
		if text := planned(t, root, "postern-"+daemon+".service.d/setup.conf"); !strings.Contains(text, "\nSupplementaryGroups=mail\n") {
			t.Errorf("%s: %q", daemon, text)
		}
		_ = os.RemoveAll(filepath.Join(root, "etc/systemd"))
	}
}

// Without a key nothing is signed: setup says so, and only then.
func TestMissingKey(t *testing.T) {
	postfixtest.Require(t)
	for name, test := range map[string]struct {
		files   map[string]string
		missing bool
	}{
		"no key":       {missing: true},
		"a key":        {files: map[string]string{"/etc/postern/dkim/example.org/s1.private": "x"}},
		"elsewhere":    {files: map[string]string{"/etc/postern/milterd.toml": "dkim-keys = \"ROOT/keys\"\n", "/keys/example.org/s1.private": "x"}},
		"none there":   {files: map[string]string{"/etc/postern/milterd.toml": "dkim-keys = \"ROOT/keys\"\n"}, missing: true},
		"a credential": {files: map[string]string{"/etc/postern/milterd.toml": "dkim-keys = \"dkim\"\n"}},
		"a table":      {files: map[string]string{"/etc/postern/milterd.toml": "dkim-keys = \"\"\ndkim-key-table = \"ROOT/KeyTable\"\n"}},
		"none wanted":  {files: map[string]string{"/etc/postern/milterd.toml": "dkim-keys = \"\"\n"}},
	} {
		root, files := t.TempDir(), fromFiles()
		for name, text := range test.files {
			files[name] = text
		}
		write(t, root, files)
		plan, err := setup.MakePlan(t.Context(), options(root, golden.Case{}))
		if err != nil {
			t.Fatal(err)
		}
		if missing := slices.ContainsFunc(plan.Next, func(text string) bool { return strings.Contains(text, "no DKIM key") }); missing != test.missing {
			t.Errorf("%s: %q", name, plan.Next)
		}
	}
}
