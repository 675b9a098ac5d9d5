package service

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A start that fails for want of descriptors or memory names the limit. Libraries, such as
// SQLite's, hide the cause.
func TestLimitHint(t *testing.T) {
	open := func(err error) error {
		return fmt.Errorf("owners: %w", &os.PathError{Op: "open", Path: "/etc/x", Err: err})
	}
	for _, test := range []struct {
		name  string
		err   error
		files uint64
		want  string
	}{
		{"no descriptor", open(syscall.EMFILE), 1024, "no more than 1024 files open; raise LimitNOFILE="},
		{"no descriptor in the machine", open(syscall.ENFILE), 1024, "fs.file-max"},
		{"no memory", open(syscall.ENOMEM), 1024, "MemoryMax="},
		{"the cause is hidden", errors.New("greylist store: unable to open database file (14)"), 16, "no more than 16 files open, which may be the cause; raise LimitNOFILE="},
		{"something else", open(syscall.ENOENT), 1024, ""},
		{"a lock", open(syscall.EAGAIN), 1024, ""},
	} {
		if got := limitHint(test.err, test.files); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

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
