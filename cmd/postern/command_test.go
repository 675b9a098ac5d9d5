package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/service"
)

// serveCommands is a daemon's admin socket until the test ends.
func serveCommands(t *testing.T, name string, commands map[string]admin.Handler) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "admin.sock")
	listeners, err := daemon.Listen([]daemon.Socket{{Endpoint: daemon.Endpoint{Network: daemon.NetworkUnix, Address: path}, Flag: "--admin"}})
	if err != nil {
		t.Fatal(err)
	}
	server, err := admin.New(commands, admin.Options{Daemon: name, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listeners) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{nil, {"help"}, {"--help"}, {"-h"}} {
		code, out, stderr := postern(t, args...)
		if code != exitYes || stderr != "" {
			t.Errorf("%q: exit %d, %s", args, code, stderr)
		}
		for _, c := range commands() {
			if !strings.Contains(out, "  postern "+c.path+" ") || !strings.Contains(out, c.help) {
				t.Errorf("%q: no line about %s", args, c.path)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		if code, out, _ := postern(t, arg); code != exitYes || out != "postern "+service.Version()+"\n" {
			t.Errorf("%s: exit %d, %q", arg, code, out)
		}
	}
}

// Every command explains itself, and refuses flags that it does not have.
func TestUsageOfEachCommand(t *testing.T) {
	for _, c := range commands() {
		words := strings.Fields(c.path)
		code, out, stderr := postern(t, append(words, "--help")...)
		if code != exitYes || stderr != "" || !strings.HasPrefix(out, c.help+"\n") || !strings.Contains(out, "Usage: postern "+c.path+" [flags]") {
			t.Errorf("%s --help: exit %d, %q, %q", c.path, code, out, stderr)
		}
		code, out, stderr = postern(t, append(words, "--no-such-flag")...)
		if code != exitFailed || out != "" || !strings.Contains(stderr, "postern "+c.path+": ") || !strings.Contains(stderr, "--no-such-flag") {
			t.Errorf("%s --no-such-flag: exit %d, %q, %q", c.path, code, out, stderr)
		}
	}
}

func TestUnknownCommands(t *testing.T) {
	const all, owners = "`postern help` lists them", "after owners comes one of check, list, reload; `postern owners --help` explains them"
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"owner", "check"}, all},
		{[]string{"owners"}, owners},
		{[]string{"owners", "chek", "a", "b"}, owners},
		{[]string{""}, all},
		{[]string{"--admin=x", "owners", "check"}, all},
	} {
		code, out, stderr := postern(t, tt.args...)
		want := "postern: no command \"" + strings.Join(tt.args, " ") + "\"; " + tt.want + "\n"
		if code != exitFailed || out != "" || stderr != want {
			t.Errorf("%q: exit %d, %q, %q, want %q", tt.args, code, out, stderr, want)
		}
	}
}

func TestCommandNamesAreDistinct(t *testing.T) {
	for i, c := range commands() {
		found, rest, err := newRoot(streams{}, new(int)).Find(append(strings.Fields(c.path), "argument"))
		if err != nil || found.CommandPath() != "postern "+c.path || len(rest) != 1 {
			t.Errorf("command %d, %q, is hidden by %q", i, c.path, found.CommandPath())
		}
	}
}

// A daemon that cannot be asked is exit status 2, never a "no".
func TestDaemonsThatCannotBeAsked(t *testing.T) {
	left := filepath.Join(t.TempDir(), "left.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: left})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	failing := func(err error) string {
		return serveCommands(t, "postern-policyd", map[string]admin.Handler{
			"owners.check": func(context.Context, json.RawMessage, func(any)) (any, error) { return nil, err },
		})
	}
	tests := []struct {
		name, path, want string
	}{
		{"not running", t.TempDir() + "/none.sock", "is postern-policyd running? --admin names its socket when it is not "},
		{"socket left behind", left, "postern-policyd is not running, it left the socket behind: start it"},
		{"another daemon", serveCommands(t, "postern-milterd", nil), "owners.check"},
		{"the daemon has no answer", failing(errors.New("table hash:/x: gone")), "table hash:/x: gone"},
		{"the check does not run", failing(&admin.Error{Code: admin.CodeFailed, Message: "the ownership check does not run"}), "the ownership check does not run"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, out, stderr := postern(t, "owners", "check", "a@b.example", "c", "--admin", tt.path)
			if code != exitFailed || out != "" || !strings.HasPrefix(stderr, "postern owners check: ") || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit %d, %q, %q", code, out, stderr)
			}
		})
	}
}

// fullDisk takes nothing.
type fullDisk struct{}

var errFull = errors.New("no space left on device")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

// An answer that is lost on its way is no answer.
func TestLostOutput(t *testing.T) {
	for _, args := range [][]string{{"--version"}, {"help", "log"}, {"dmarc", "read", "--dns=false", reportFile(t, "a")}} {
		var stderr strings.Builder
		code := run(t.Context(), args, streams{fullDisk{}, &stderr})
		if code != exitFailed || !strings.Contains(stderr.String(), errFull.Error()) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%s: exit %d, %q", args, code, stderr.String())
		}
	}
}
