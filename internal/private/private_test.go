package private

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChecks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		mode                  fs.FileMode
		alone, group, perhaps string // parts of the errors of Check without and with a group, and of CheckShared
	}{
		{0o600, "", "", ""},
		{0o400, "", "", ""},
		{0o640, "the group", "", ""},
		{0o660, "the group", "the group", ""},
		{0o604, "everybody", "everybody", "everybody"},
		{0o602, "everybody", "everybody", "everybody"},
		{0o644, "everybody", "everybody", "chmod o-rwx " + path},
	} {
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for want, err := range map[*string]error{
			&tt.alone:   Check(path, info, -1, "the secret"),
			&tt.group:   Check(path, info, os.Getegid(), "the secret"),
			&tt.perhaps: CheckShared(path, info, "the secret"),
		} {
			if (err == nil) != (*want == "") || err != nil && !strings.Contains(err.Error(), *want) {
				t.Errorf("mode %o: %v, want %q", tt.mode, err, *want)
			}
		}
	}
}
