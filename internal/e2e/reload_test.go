package e2e

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin/api"
)

// reload runs `postern reload` against a daemon and returns what it printed and its
// exit status.
func (r *restartable) reload(t *testing.T, name string, flags ...string) (out string, code int) {
	t.Helper()
	path, err := binaries.Path(t.Context(), "postern")
	if err != nil {
		t.Fatal(err)
	}
	text, err := exec.CommandContext(t.Context(), path, append([]string{"reload", name, "--admin", "unix:" + r.client.Path}, flags...)...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	} else if err != nil {
		code = exit.ExitCode()
	}
	return string(text), code
}

// A text that has lost most of its entries is not used by either daemon until an
// administrator says so.
func TestHeldBack(t *testing.T) {
	t.Parallel()
	const five = "a.example\nb.example\nc.example\nd.example\ne.example\n"
	for _, tt := range []struct {
		daemon string
		args   func(path string) []string
		before string
		after  string
	}{
		{"policyd", func(path string) []string { return []string{"--checks", "ownership", "--owners", "texthash:" + path} },
			"a@x.example ann\nb@x.example bob\nc@x.example cid\nd@x.example dan\ne@x.example eve\n", "a@x.example ann\n"},
		{"milterd", func(path string) []string { return []string{"--trusted-forwarders", path} }, five, "a.example\n"},
	} {
		t.Run(tt.daemon, func(t *testing.T) {
			t.Parallel()
			dir := openDir(t)
			path, socket := filepath.Join(dir, "text"), "unix:"+filepath.Join(dir, "socket")
			replaceFile(t, path, tt.before)
			listen := map[string]string{"policyd": "--listen", "milterd": "--listen-verify"}[tt.daemon]
			d := startRestartable(t, "postern-"+tt.daemon, "", append(tt.args(path), listen, socket)...)
			replaceFile(t, path, tt.after)
			out, code := d.reload(t, tt.daemon)
			for code == 0 { // the daemon looks when it has been asked
				out, code = d.reload(t, tt.daemon)
			}
			if code != 1 || !strings.Contains(out, path+": held back") {
				t.Fatalf("exit %d, %s", code, out)
			}
			if tt.daemon == "policyd" && !d.owns(t, "e@x.example", "eve") {
				t.Error("what is held back is in force")
			}
			if out, code = d.reload(t, tt.daemon, "--force"); code != 0 || !strings.Contains(out, path+": used as it is") {
				t.Fatalf("exit %d, %s", code, out)
			}
			for code = 1; code != 0; {
				out, code = d.reload(t, tt.daemon)
			}
			if strings.Contains(out, "held back") || tt.daemon == "policyd" && d.owns(t, "e@x.example", "eve") {
				t.Errorf("what was taken is not in force: %s", out)
			}
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func (r *restartable) owns(t *testing.T, sender, login string) bool {
	t.Helper()
	var answer api.OwnersCheckResult
	if err := r.client.Call(t.Context(), api.OwnersCheck, api.OwnersCheckArgs{Sender: sender, Login: login}, &answer, nil); err != nil {
		t.Fatal(err)
	}
	return answer.Allowed
}
