package main

import (
	"context"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

func TestConfig(t *testing.T) {
	inForce := api.ConfigResult{Settings: []api.Setting{
		{Name: "deadline", Value: `"8s"`, Origin: "default"},
		{Name: "shadow", Value: `["all"]`, Origin: "/etc/postern/policyd.toml:3"},
	}}
	pending := api.ConfigResult{
		Refused: "policyd.toml:4: owners: no such file\npolicyd.toml:5: dbl: no",
		Settings: []api.Setting{
			{Name: "listen", Value: `["inet:127.0.0.1:10045"]`, Origin: "default", Pending: `["systemd:policy"]`, PendingOrigin: "policyd.toml:1", Restart: true},
			{Name: "deadline", Value: `"8s"`, Origin: "default", Pending: `"5s"`, PendingOrigin: "policyd.toml:2"},
		},
	}
	tests := []struct {
		name   string
		answer api.ConfigResult
		args   []string
		code   int
		want   string
	}{
		{"in force", inForce, nil, exitYes, "# postern-policyd\ndeadline = \"8s\"  # default\nshadow = [\"all\"]  # /etc/postern/policyd.toml:3\n"},
		{"what was set", inForce, []string{"--set"}, exitYes, "# postern-policyd\nshadow = [\"all\"]  # /etc/postern/policyd.toml:3\n"},
		{"pending", pending, []string{"--set"}, exitNo, "# postern-policyd\n" +
			"# refused: policyd.toml:4: owners: no such file\n# refused: policyd.toml:5: dbl: no\n" +
			"listen = [\"inet:127.0.0.1:10045\"]  # default\n# pending a restart: listen = [\"systemd:policy\"]  # policyd.toml:1\n" +
			"deadline = \"8s\"  # default\n# pending a reload: deadline = \"5s\"  # policyd.toml:2\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := serveCommands(t, api.Policyd, map[string]admin.Handler{
				api.Config: admin.Typed(func(context.Context, struct{}, func(any)) (any, error) { return tt.answer, nil }),
			})
			code, out, stderr := postern(t, append([]string{"config", "policyd", "--admin", "unix:" + path}, tt.args...)...)
			if code != tt.code || out != tt.want || stderr != "" {
				t.Errorf("exit %d, %q, %q", code, out, stderr)
			}
		})
	}
}

func TestConfigMistakes(t *testing.T) {
	for want, args := range map[string][]string{
		"write policyd or milterd":      {"policy"},
		"usage: postern config":         {"policyd", "milterd"},
		"usage: postern config [flags]": {"--admin", "unix:/run/x"},
		"write unix:PATH":               {"policyd", "--admin", "systemd"},
		"/nonexistent/policyd.sock":     {"policyd", "--admin", "unix:/nonexistent/policyd.sock"},
	} {
		code, out, stderr := postern(t, append([]string{"config"}, args...)...)
		if code != exitFailed || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, stderr)
		}
	}
}
