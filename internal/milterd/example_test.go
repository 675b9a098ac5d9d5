package milterd

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

const deploy = "../../deploy/"

// The example names every setting, each at its default.
func TestExampleIsComplete(t *testing.T) {
	text, err := os.ReadFile(deploy + "examples/milterd.toml")
	if err != nil {
		t.Fatal(err)
	}
	// Uncommented, every setting must load and be what it is by default.
	all := regexp.MustCompile(`(?m)^#([a-z0-9-]+ = )`).ReplaceAllString(string(text), "$1")
	path := filepath.Join(t.TempDir(), "milterd.toml")
	if err := os.WriteFile(path, []byte(all), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := configure([]string{"--config", path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := configure([]string{"--config="}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defaults.set.VisitAll(func(f *pflag.Flag) {
		if slices.Contains([]string{"config", "check-config", "online", "version"}, f.Name) {
			return
		}
		if got := loaded.set.Lookup(f.Name).Value.String(); got != f.Value.String() {
			t.Errorf("%s: the example says %s, the default is %s", f.Name, got, f.Value)
		}
		if !strings.Contains(string(text), "\n#"+f.Name+" = ") {
			t.Errorf("%s is missing from the example", f.Name)
		}
	})
}

// The flags of the unit are valid, and name the sockets of the socket units.
func TestShippedUnit(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(deploy + "systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	unit := read("postern-milterd.service")
	command := regexp.MustCompile(`(?m)^ExecStart=/usr/sbin/postern-milterd (.*)$`).FindStringSubmatch(unit)
	if command == nil {
		t.Fatal("the unit does not start the daemon")
	}
	s, err := configure(append([]string{"--config="}, strings.Fields(command[1])...), nil)
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := s.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"postern-milterd.socket", "postern-milterd-sign.socket"} {
		if want := "FileDescriptorName=" + sockets[i].Address + "\n"; len(sockets) != 2 || !strings.Contains(read(name), want) || !strings.Contains(unit, name) {
			t.Errorf("%s has no %s", name, want)
		}
	}
	// Postfix waits 30 s for the first answer of a connection.
	if s.DrainTimeout.Seconds() > 25 {
		t.Errorf("a restart takes up to %v", s.DrainTimeout)
	}
	if !strings.Contains(unit, "RestartPreventExitStatus=78") {
		t.Error("the unit restarts on a configuration error")
	}
}
