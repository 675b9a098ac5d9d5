package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// rotating makes a key of a domain and returns the arguments of `dkim rotate` for its
// folder. Publishing fails.
func rotating(t *testing.T, domain string) (dir string, args []string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "dkim")
	if code, _, stderr := postern(t, "dkim", "genkey", domain, "--dir", dir, "--type", "ed25519"); code != exitYes {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	program := filepath.Join(t.TempDir(), "publish")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho no such zone; exit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	dns := resolvertest.New(t, domain+". IN SOA ns."+domain+". hostmaster."+domain+". 1 2 3 4 600\n")
	dns.SetAuthoritative()
	return dir, []string{"dkim", "rotate", "--config=", "--dkim-rotate-servers=" + dns.Addr(), "--dkim-keys=" + dir, "--dns-command=" + program}
}

// until calls found when a text has been written to it.
type until struct {
	bytes.Buffer
	text  string
	found func()
}

func (u *until) Write(p []byte) (int, error) {
	defer func() {
		if strings.Contains(u.String(), u.text) {
			u.found()
		}
	}()
	return u.Buffer.Write(p)
}

// A command that waits prints why a step cannot be made, and does not wait in silence.
func TestDKIMRotateWaitPrintsProblems(t *testing.T) {
	_, args := rotating(t, "home.example")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out bytes.Buffer
	stderr := &until{text: "no such zone", found: cancel}
	if code := run(ctx, append(args, "--wait", "home.example"), streams{&out, stderr}); code == exitFailed || strings.Count(stderr.String(), stderr.text) != 1 {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if !strings.Contains(out.String(), "home.example: publish since") {
		t.Errorf("printed %s", &out)
	}
}

// A state that cannot be read does not keep the rotations of other domains from going on.
func TestDKIMRotateWithABrokenState(t *testing.T) {
	dir, args := rotating(t, "home.example")
	if code, _, stderr := postern(t, append(args, "home.example")...); code != exitNo {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	broken := filepath.Join(dir, "broken.example", ".rotation")
	if err := os.MkdirAll(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "state.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, stderr := postern(t, append(args, "--status")...)
	if code != exitNo || !strings.Contains(out, "home.example: publish since") || !strings.Contains(stderr, "broken.example") {
		t.Errorf("exit %d: %s%s", code, out, stderr)
	}
}
