package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// A table that would lose most of its entries is held back until the administrator
// takes it.
func TestHeldBackTableIsTaken(t *testing.T) {
	t.Parallel()
	s := newSite(t, SiteConfig{})
	path, err := binaries.Path(t.Context(), "postern")
	if err != nil {
		t.Fatal(err)
	}
	reload := func(status int, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), path, append([]string{"owners", "reload", "--admin", filepath.Join(s.Dir, "policyd.sock")}, args...)...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != status {
			t.Fatalf("postern owners reload %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	expect(t, s, postfixtest.Submission, As(Alice, Press, Dora), 250)
	replaceFile(t, s.OwnersPath(), "bob@home.example bob@home.example\n")
	if _, err := s.Policyd.WaitLine(t.Context(), func(r postfixtest.Record) bool {
		return strings.HasPrefix(r.Message, "a text would lose more than half of its entries")
	}); err != nil {
		t.Fatal(err)
	}
	expect(t, s, postfixtest.Submission, As(Alice, Press, Dora), 250)
	table := "hash:" + s.OwnersPath()
	if out := reload(1); !strings.Contains(out, table+": held back") {
		t.Errorf("without --force: %s", out)
	}
	expect(t, s, postfixtest.Submission, As(Alice, Press, Dora), 250)
	if out := reload(0, "--force"); !strings.Contains(out, table+": used as it is") {
		t.Errorf("with --force: %s", out)
	}
	eventually(t, func() bool { return send(t, s, postfixtest.Submission, As(Alice, Press, Dora)).Code == 553 })
	expect(t, s, postfixtest.Submission, As(Bob, Bob, Dora), 250)
	if out := reload(0); strings.Contains(out, "held back") {
		t.Errorf("afterwards: %s", out)
	}
}
