package postfixtest

import (
	"os/exec"
	"slices"
	"testing"
)

// After a reload, no process takes mail by the settings of before.
func TestReload(t *testing.T) {
	t.Parallel()
	p := New(t, Config{})
	before := p.smtpds()
	if len(before) == 0 {
		t.Fatal("no smtpd has greeted")
	}
	if err := p.Reload(t.Context(), func() error {
		return exec.CommandContext(t.Context(), "postfix", "-c", p.ConfigDir(), "reload").Run()
	}); err != nil {
		t.Fatal(err)
	}
	for _, pid := range p.smtpds() {
		if slices.Contains(before, pid) {
			t.Errorf("process %d is left", pid)
		}
	}
}
