package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const deploy = "../../deploy"

func readDeploy(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deploy, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// settings joins the continuation lines of a Postfix file, without comments.
func settings(text string) string {
	text = regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(text, "")
	return regexp.MustCompile(`\n?[ \t]+`).ReplaceAllString(text, " ")
}

// The lines that the tests attach the daemon with are those that are shipped.
func TestShippedPostfixLines(t *testing.T) {
	const endpoint = "inet:127.0.0.1:10045"
	main := settings(readDeploy(t, "postfix/main.cf"))
	if want := recipientRestrictions(endpoint, "dnsbl, greylist"); !strings.Contains(main, want) {
		t.Errorf("main.cf:\n%s\nhas not %s", main, want)
	}
	master := strings.ReplaceAll(settings(readDeploy(t, "postfix/master.cf")), " = ", "=")
	if want := senderRestrictions(endpoint); strings.Count(master, want) != 2 {
		t.Errorf("master.cf:\n%s\nhas not twice %s", master, want)
	}
}

// The shipped example runs, once the table that it names exists.
func TestShippedExample(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	dir, err := postfixtest.MakeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	owners := filepath.Join(dir, "sender_logins")
	if err := os.WriteFile(owners, []byte(ownersMap), 0o644); err != nil {
		t.Fatal(err)
	}
	example := strings.Replace(readDeploy(t, "examples/policyd.toml"), "#owners = []", `owners = ["hash:`+owners+`"]`, 1)
	file := filepath.Join(dir, "policyd.toml")
	if err := os.WriteFile(file, []byte(example), 0o644); err != nil {
		t.Fatal(err)
	}
	binary, err := binaries.Path(t.Context(), "postern-policyd")
	if err != nil {
		t.Fatal(err)
	}
	dns := resolvertest.New(t, "")
	// What is not the example's: where it listens, since its ports may be taken
	// here, where it keeps the greylist, and whom it asks.
	postfixtest.NewDaemon(t, postfixtest.DaemonConfig{Path: binary, Args: []string{
		"--config", file, "--listen", "inet:127.0.0.1:0", "--metrics-listen", "inet:127.0.0.1:0", "--admin", "unix:" + filepath.Join(dir, "admin.sock"),
		"--greylist-store", "sqlite:" + filepath.Join(dir, "greylist.db"), "--resolver", dns.Addr(),
	}})
	if !strings.Contains(readDeploy(t, "systemd/postern-policyd.service"), "RestartPreventExitStatus=78") {
		t.Error("the unit restarts on a configuration error")
	}
}

// A reload checks what the unit runs, and goes on to the daemon only when that is
// good: systemd runs the lines of ExecReload in order up to the first that fails.
func TestShippedReloadChecksFirst(t *testing.T) {
	for _, unit := range []string{"systemd/postern-policyd.service", "systemd/postern-milterd.service", "examples/mailinabox/milterd.conf"} {
		text := readDeploy(t, unit)
		start := regexp.MustCompile(`(?m)^ExecStart=(/usr/sbin/\S+) (.*)$`).FindStringSubmatch(text)
		if start == nil {
			t.Fatalf("%s: no ExecStart", unit)
		}
		want := "\nExecReload=" + start[1] + " --check-config " + start[2] + "\nExecReload=/bin/kill -HUP $MAINPID\n"
		if !strings.Contains(text, want) || strings.Count(text, "ExecReload=/") != 2 {
			t.Errorf("%s has not%s", unit, want)
		}
	}
}

// The units hide home directories: what an example reads there is in its drop-in.
func TestShippedDropInsShowHomes(t *testing.T) {
	for unit, files := range map[string][]string{
		"examples/mailinabox/policyd.conf": {"examples/mailinabox/sender-login-maps.cf", "examples/mailinabox/policyd.toml"},
		"examples/mailinabox/milterd.conf": {"examples/mailinabox/milterd.toml", "examples/mailinabox/README.md"},
	} {
		shown := regexp.MustCompile(`(?m)^BindReadOnlyPaths=-(/home/\S+)$`).FindStringSubmatch(readDeploy(t, unit))
		if shown == nil {
			t.Fatalf("%s shows nothing", unit)
		}
		found := false
		for _, file := range files {
			for _, path := range regexp.MustCompile(`/home/[\w/.-]+\.(sqlite|private)`).FindAllString(readDeploy(t, file), -1) {
				if strings.HasSuffix(path, ".private") != strings.Contains(unit, "milterd") {
					continue // of the other daemon
				}
				found = true
				if !strings.HasPrefix(path, shown[1]+"/") {
					t.Errorf("%s reads %s, and %s shows %s", file, path, unit, shown[1])
				}
			}
		}
		if !found {
			t.Errorf("%v name no file in a home", files)
		}
	}
}
