package service

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// What the sandbox of a unit keeps from a daemon looks like a mistake of the settings:
// its error says what to put into a drop-in.
func TestSandboxHint(t *testing.T) {
	readOnly := fmt.Errorf("open log: %w", &os.PathError{Op: "open", Path: "/var/log/postern/x.log", Err: syscall.EROFS})
	unit := []string{"INVOCATION_ID=1"}
	for _, test := range []struct {
		name    string
		environ []string
		err     error
		want    string
	}{
		{"read-only", unit, readOnly, "ReadWritePaths=FOLDER, or LogsDirectory=NAME"},
		{"read-only, without a unit", nil, readOnly, ""},
		{"a home directory", unit, errors.New("owners: hash:/home/box/owners: no such file"), "(ProtectHome=); name the folder in a drop-in: BindReadOnlyPaths=FOLDER"},
		{"a temporary file", unit, errors.New("open /tmp/key: no such file or directory"), "(PrivateTmp=)"},
		{"a folder of that name elsewhere", unit, errors.New("open /srv/tmp/key, /srv/home/x: no such file or directory"), ""},
	} {
		if got := sandboxHint("postern-policyd", test.environ, test.err); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
