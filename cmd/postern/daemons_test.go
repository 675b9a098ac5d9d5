package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
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
