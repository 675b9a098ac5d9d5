package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Root does not run with its own rights what another user may have written.
func TestOutputOfAsOwnerOfTheFile(t *testing.T) {
	me := os.Geteuid()
	for _, test := range []struct {
		owner, group int
		mode         os.FileMode
		want         string // "" for an error
	}{
		{me, -1, 0o755, strconv.Itoa(me)},
		{12345, 12345, 0o755, "12345"},
		{12345, 12345, 0o777, "12345"},
		{me, -1, 0o757, ""},
		{me, -1, 0o775, strconv.Itoa(me)},
		{me, 12345, 0o775, ""},
	} {
		if me != 0 && (test.owner != me || test.group > 0 || test.want == "") {
			continue // only root has rights to give up
		}
		path := filepath.Join(t.TempDir(), "postern-policyd")
		err := errors.Join(os.WriteFile(path, []byte("#!/bin/sh\nid -u\n"), 0o700), os.Chown(path, test.owner, test.group), os.Chmod(path, test.mode))
		if err != nil {
			t.Fatal(err)
		}
		out, err := outputOf(t.Context(), path, "--version")
		if strings.TrimSpace(out) != test.want || (err != nil) != (test.want == "") {
			t.Errorf("%+v: %q, %v", test, out, err)
		}
	}
	path := filepath.Join(t.TempDir(), "process")
	if err := os.Symlink(procPath(os.Getpid(), "exe"), path); err != nil {
		t.Fatal(err)
	}
	if out, err := outputOf(t.Context(), path, "-test.list=^TestOutputOfAsOwner"); err != nil || !strings.Contains(out, "TestOutputOfAsOwnerOfTheFile") {
		t.Errorf("%q, %v", out, err)
	}
}
