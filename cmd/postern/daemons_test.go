package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/doctor"
)

// The daemons' own spelling of --admin finds their socket, and so does a path.
func TestAdminSpellings(t *testing.T) {
	path := serveCommands(t, api.Policyd, map[string]admin.Handler{
		"owners.check": func(context.Context, json.RawMessage, func(any)) (any, error) {
			return api.OwnersCheckResult{Allowed: true, Reason: "owned"}, nil
		},
	})
	for _, spelling := range []string{path, "unix:" + path} {
		if code, out, stderr := postern(t, "owners", "check", "a@b.example", "c", "--admin", spelling); code != exitYes || !strings.HasPrefix(out, "yes") {
			t.Errorf("%s: exit %d, %q, %q", spelling, code, out, stderr)
		}
	}
	code, out, stderr := postern(t, "owners", "check", "a@b.example", "c", "--admin", "systemd")
	if code != exitFailed || out != "" || !strings.Contains(stderr, "write unix:PATH") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("an endpoint without an address: exit %d, %q, %q", code, out, stderr)
	}
}

// The help shows the endpoints of the daemons as these spell them.
func TestAdminDefaults(t *testing.T) {
	for _, tt := range []struct{ group, word, want string }{
		{"owners", "check", `default unix:` + api.PolicydSocket},
		{"dkim", "keys", `default unix:` + api.MilterdSocket},
	} {
		if _, out, _ := postern(t, tt.group, tt.word, "--help"); !strings.Contains(out, tt.want) {
			t.Errorf("%s %s --help has no %q:\n%s", tt.group, tt.word, tt.want, out)
		}
	}
}

// A daemon whose settings name another admin socket, as on Mail-in-a-Box, is found there
// without a flag, and a flag has priority.
func TestSocketsOfTheSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "milterd.toml")
	if err := os.WriteFile(file, []byte("admin = \"unix:/run/box/milterd.sock\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := func(daemon string) string { return map[string]string{api.Milterd: file}[daemon] }
	for _, tt := range []struct{ args, policyd, milterd string }{
		{"", "unix:" + api.PolicydSocket, "unix:/run/box/milterd.sock"},
		{"--policyd=/x --milterd=/y", "unix:/x", "unix:/y"},
	} {
		fs := pflag.NewFlagSet("log", pflag.ContinueOnError)
		policyd, milterd := bothClients(fs)
		if err := fs.Parse(strings.Fields(tt.args)); err != nil {
			t.Fatal(err)
		}
		findSockets(fs, settings)
		if got := []string{policyd.Endpoint(), milterd.Endpoint()}; !slices.Equal(got, []string{tt.policyd, tt.milterd}) {
			t.Errorf("%q: %q", tt.args, got)
		}
	}
	if got := configuredClient(api.Milterd, file).Endpoint(); got != "unix:/run/box/milterd.sock" {
		t.Errorf("one daemon: %s", got)
	}
	o := doctor.DaemonOptions{Config: file}
	if findAdmin(&o, api.Milterd); o.Admin != "unix:/run/box/milterd.sock" {
		t.Errorf("the doctor asks %s", o.Admin)
	}
}
