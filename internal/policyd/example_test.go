package policyd

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

const examplePath = "../../deploy/examples/policyd.toml"

// The example names every setting, each at its default unless it is set.
func TestExampleIsComplete(t *testing.T) {
	text, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	// Uncommented, every setting must load and be what it is by default.
	all := regexp.MustCompile(`(?m)^#([a-z0-9-]+ = )`).ReplaceAllString(string(text), "$1")
	all = regexp.MustCompile(`(?m)^checks = .*\n`).ReplaceAllString(all, "")
	dir := t.TempDir()
	path := filepath.Join(dir, "policyd.toml")
	if err := os.WriteFile(path, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := configure([]string{"--config", path, "--owners", "static:x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := configure([]string{"--config=", "--owners", "static:x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defaults.set.VisitAll(func(f *pflag.Flag) {
		if got := loaded.set.Lookup(f.Name).Value.String(); got != f.Value.String() && f.Name != "config" {
			t.Errorf("%s: the example says %s, the default is %s", f.Name, got, f.Value)
		}
		if !settingOfRun(f.Name) && !strings.Contains(string(text), "\n"+f.Name+" = ") && !strings.Contains(string(text), "\n#"+f.Name+" = ") {
			t.Errorf("%s is missing from the example", f.Name)
		}
	})
}

// The file that the package installs names no table that a machine may not have: before
// postern setup, the daemon says what to do.
func TestExampleBeforeSetup(t *testing.T) {
	_, err := configure([]string{"--config", examplePath}, nil)
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "the ownership check has no table; run postern setup") {
		t.Errorf("%v", err)
	}
}

// settingOfRun recognises flags that are no settings of the daemon.
func settingOfRun(flag string) bool {
	return flag == "config" || flag == "check-config" || flag == "online" || flag == "version"
}

// Every setting must have a default that is valid, and errors must name it.
func TestDefaults(t *testing.T) {
	s, err := configure([]string{"--config=", "--owners", "static:x"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"listen": "[inet:127.0.0.1:10045]", "deadline": "8s", "owners-on-error": "defer", "owners-unlisted": "reject",
		"owners-unauthenticated": "pass", "null-sender": "pass", "owner-self": "true", "recipient-delimiter": "+",
		"metrics-listen": "inet:127.0.0.1:9145", "admin": "unix:/run/postern/policyd.sock", "dns-timeout": "2s",
		"log-format": "json", "socket-mode": "0660", "drain-timeout": "30s", "queue-directory": "/var/spool/postfix",
	}
	for name, value := range want {
		if got := s.set.Lookup(name).Value.String(); got != value {
			t.Errorf("--%s: %s, want %s", name, got, value)
		}
	}
}

func TestRefusedSettings(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "owners")
	if err := os.WriteFile(broken, []byte("a@b.example ann\nno value\n\nlonely\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	owners := []string{"--checks=ownership", "--owners", "static:x"}
	tests := []struct {
		name string
		args []string
		env  []string
		want string
	}{
		{"no table", []string{"--checks=ownership"}, nil, "--owners: the ownership check has no table"},
		{"no check", []string{"--owners", "static:x", "--checks="}, nil, "--checks: "},
		{"unknown check", append(owners, "--checks=greylisting"), nil, `--checks: "greylisting" is not one of`},
		{"unknown flag", append(owners, "--owner-maps=x"), nil, "--owner-maps"},
		{"unknown variable", owners, []string{"POSTERN_POLICYD_OWNER=x"}, "POSTERN_POLICYD_OWNER"},
		{"variable out of range", owners, []string{"POSTERN_POLICYD_DEADLINE=1h"}, "POSTERN_POLICYD_DEADLINE: "},
		{"login domain", append(owners, "--login-domain=a..b"), nil, "--login-domain: "},
		{"local domains", append(owners, "--local-domains=x.example", "--local-domains=a b"), nil, `--local-domains: "a b": `},
		{"endpoint", append(owners, "--listen=10045"), nil, "--listen: "},
		{"endpoint bound to an unknown check", append(owners, "--listen=inet:127.0.0.1:0=owners"), nil, `--listen: inet:127.0.0.1:0=owners: "owners" is none of the checks that run`},
		{"map type", []string{"--checks=ownership", "--owners", "nis:x"}, nil, `--owners: table "nis:x": map type "nis" is not built in; known types: `},
		{"map file", []string{"--checks=ownership", "--owners", "hash:/nonexistent/x"}, nil, "--owners: table hash:/nonexistent/x: "},
		{"map line", []string{"--checks=ownership", "--owners", "hash:" + broken}, nil, broken + ":4: "},
		{"shadow", append(owners, "--shadow=greylist"), nil, "--shadow: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := loadAll(append([]string{"--config="}, tt.args...), tt.env)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// Errors are in the same order each time, so that a run can be compared with the one before.
func TestErrorOrder(t *testing.T) {
	args := []string{"--config=", "--checks=ownership", "--owners=static:x", "--login-domain=a..b", "--myorigin=c..d", "--mydomain=e..f"}
	_, first := configure(args, nil)
	if first == nil || strings.Count(first.Error(), "label") != 3 {
		t.Fatalf("%v", first)
	}
	for range 20 {
		if _, err := configure(args, nil); err == nil || err.Error() != first.Error() {
			t.Fatalf("%v\nand before:\n%v", err, first)
		}
	}
}
