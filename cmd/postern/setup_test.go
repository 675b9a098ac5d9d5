package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
)

// Two answers on one input, the second without a newline, and then its end.
func TestReadAnswer(t *testing.T) {
	in := strings.NewReader("  yes\r\nno")
	for _, want := range []string{"yes", "no", ""} {
		if got, err := readAnswer(t.Context(), in); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
}

// Whether postgrey's memory can be read is known before anything is changed.
func TestDumpTool(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if path, err := dumpTool(); err == nil || !strings.HasSuffix(err.Error(), "; apt-get install db-util") {
		t.Errorf("%q, %v", path, err)
	}
	tool := filepath.Join(dir, "db5.3_dump")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if path, err := dumpTool(); path != tool || err != nil {
		t.Errorf("%q, %v", path, err)
	}
}

// Ctrl-C ends the command while it waits for an answer.
func TestReadAnswerInterrupted(t *testing.T) {
	in, typed := io.Pipe()
	defer typed.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	if got, err := readAnswer(ctx, in); got != "" || !errors.Is(err, errInterrupted) {
		t.Errorf("%q, %v", got, err)
	}
}

// The greylist is imported at the socket of --admin, or else of --policyd-config, which
// may be written after the flags are parsed.
func TestSetupImportsAt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policyd.toml")
	for _, tt := range []struct{ args, want string }{
		{"--policyd-config=" + file, "unix:/run/own/policyd.sock"},
		{"--policyd-config=" + file + " --admin=/x", "unix:/x"},
		{"--policyd-config=" + file + ".none", "unix:" + api.PolicydSocket},
	} {
		fs, f := pflag.NewFlagSet("setup", pflag.ContinueOnError), &setupFlags{}
		f.bind(fs)
		if err := fs.Parse(strings.Fields(tt.args)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("admin = \"unix:/run/own/policyd.sock\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := f.policydClient(fs).Endpoint(); got != tt.want {
			t.Errorf("%s: %s", tt.args, got)
		}
	}
}

// Undo is for the Postfix that was attached, which need not be the usual one.
func TestUndoCommand(t *testing.T) {
	for args, want := range map[string]string{"": "postern setup --undo", "--config-directory=/etc/postfix-out": "postern setup --undo --config-directory /etc/postfix-out"} {
		fs, f := pflag.NewFlagSet("setup", pflag.ContinueOnError), &setupFlags{}
		f.bind(fs)
		if err := fs.Parse(strings.Fields(args)); err != nil || f.undoCommand() != want {
			t.Errorf("%q: %q, %v", args, f.undoCommand(), err)
		}
	}
}

// Root does not read the files of postgrey's user itself: that user could direct Berkeley DB.
func TestDumpDatabaseAsItsOwner(t *testing.T) {
	want := os.Geteuid()
	top, err := os.MkdirTemp("", "postgrey-") // that of the test is root's alone
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	tool, folder := filepath.Join(top, "db_dump"), filepath.Join(top, "postgrey")
	err = errors.Join(os.Chmod(top, 0o755), os.Mkdir(folder, 0o700), os.WriteFile(tool, []byte("#!/bin/sh\nid -u; id -G; echo \"$3\" \"$4\"\n"), 0o755))
	if err == nil && want == 0 {
		want = 12345
		err = os.Chown(folder, want, want)
	}
	if err != nil {
		t.Fatal(err)
	}
	path, err := dumpDatabase(t.Context(), tool, folder, "postgrey.db")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	text, err := os.ReadFile(path)
	lines := strings.Split(string(text), "\n")
	if err != nil || len(lines) < 3 || lines[0] != strconv.Itoa(want) || lines[2] != folder+" postgrey.db" {
		t.Errorf("%q, %v, want user %d", text, err, want)
	}
	if want == 12345 && lines[1] != "12345" {
		t.Errorf("groups %s", lines[1])
	}
}
