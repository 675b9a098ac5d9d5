package main

import (
	"context"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

func TestReload(t *testing.T) {
	path := serveCommands(t, api.Milterd, map[string]admin.Handler{
		api.Reload: admin.Typed(func(_ context.Context, args api.ReloadArgs, _ func(any)) (any, error) {
			result := api.ReloadResult{Held: []string{"/etc/opendkim/KeyTable"}}
			if args.Force {
				result.Taken = result.Held
			}
			return result, nil
		}),
	})
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitNo, "/etc/opendkim/KeyTable: held back, it would lose more than half of its entries; correct it, or use it with --force\n"},
		{[]string{"--force"}, exitYes, "/etc/opendkim/KeyTable: used as it is from now on\n"},
	} {
		code, out, stderr := postern(t, append([]string{"reload", "milterd", "--admin", "unix:" + path}, tt.args...)...)
		if want := tt.want + "postern-milterd: a reload was asked for; the daemon's log has its outcome\n"; code != tt.code || out != want || stderr != "" {
			t.Errorf("%q: exit %d, %q, %q", tt.args, code, out, stderr)
		}
	}
}

func TestReloadMistakes(t *testing.T) {
	for want, args := range map[string][]string{
		"write policyd or milterd":  {"policy"},
		"usage: postern reload":     {"policyd", "milterd"},
		"/nonexistent/policyd.sock": {"policyd", "--admin", "unix:/nonexistent/policyd.sock"},
	} {
		code, out, stderr := postern(t, append([]string{"reload"}, args...)...)
		if code != exitFailed || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, stderr)
		}
	}
}
