package main

import (
	"context"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

func TestReady(t *testing.T) {
	const failing = "serving: ok\nnot draining: ok\ngreylist store: failing: redis is full\n"
	tests := []struct {
		name   string
		answer api.ReadyResult
		code   int
		want   string
	}{
		{"ready", api.ReadyResult{Ready: true, Report: "serving: ok\n"}, exitYes, "postern-policyd: ready\n"},
		{"not ready", api.ReadyResult{Report: failing}, exitNo,
			"postern-policyd: not ready\n  serving: ok\n  not draining: ok\n  greylist store: failing: redis is full\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := serveCommands(t, api.Policyd, map[string]admin.Handler{
				api.Ready: admin.Typed(func(context.Context, struct{}, func(any)) (any, error) { return tt.answer, nil }),
			})
			code, out, stderr := postern(t, "ready", "policyd", "--admin", "unix:"+path)
			if code != tt.code || out != tt.want || stderr != "" {
				t.Errorf("exit %d, %q, %q", code, out, stderr)
			}
		})
	}
}

// Of both daemons, the one that is not run here is passed over.
func TestReadyOfWhatRunsHere(t *testing.T) {
	path := serveCommands(t, api.Policyd, map[string]admin.Handler{
		api.Ready: admin.Typed(func(context.Context, struct{}, func(any)) (any, error) { return api.ReadyResult{Ready: true}, nil }),
	})
	var out strings.Builder
	clients := []*admin.Client{{Daemon: api.Policyd, Path: path}, {Daemon: api.Milterd, Path: "/nonexistent/milterd.sock"}}
	if code, err := showReady(t.Context(), streams{&out, &out}, clients); code != exitYes || err != nil || out.String() != "postern-policyd: ready\n" {
		t.Errorf("exit %d, %v, %q", code, err, &out)
	}
	clients[0].Path = "/nonexistent/policyd.sock"
	if code, err := showReady(t.Context(), streams{&out, &out}, clients); code != exitFailed || err == nil {
		t.Errorf("with no daemon: exit %d, %v", code, err)
	}
}

func TestReadyMistakes(t *testing.T) {
	for want, args := range map[string][]string{
		"write policyd or milterd":     {"policy"},
		"usage: postern ready":         {"policyd", "milterd"},
		"is postern-policyd running?":  {"policyd", "--admin", "unix:/nonexistent/policyd.sock"},
		"usage: postern ready [flags]": {"--admin", "unix:/run/x"},
	} {
		code, out, stderr := postern(t, append([]string{"ready"}, args...)...)
		if code != exitFailed || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, stderr)
		}
	}
}
