package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/doctor"
)

// What the checks find is tested in internal/doctor; here, how it is printed.
func TestDoctor(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	args := []string{"doctor", "--config-directory", gone, "--check", "postfix"}
	code, out, stderr := postern(t, args...)
	if code != 2 || stderr != "" || !strings.HasPrefix(out, "fail  postfix  ") || strings.Count(out, "\n") != 1 || !strings.Contains(out, "; fix: ") {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
	var report doctor.Report
	code, out, _ = postern(t, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 2 || report.Level != doctor.Fail || len(report.Findings) != 1 || report.Findings[0].Check != "postfix" {
		t.Errorf("exit %d, %v, %s", code, err, out)
	}
	code, _, stderr = postern(t, "doctor", "--check", "postfx")
	if code != exitFailed || !strings.Contains(stderr, `no check "postfx"; the checks are postfix, `) {
		t.Errorf("exit %d, %q", code, stderr)
	}
	if code, _, _ = postern(t, "doctor", "now"); code != exitFailed {
		t.Errorf("an argument: exit %d", code)
	}
	code, out, _ = postern(t, append(args[:len(args):len(args)], "--skip", "postfix")...)
	if code != exitYes || out != "" {
		t.Errorf("nothing to look at: exit %d, %q", code, out)
	}
}
