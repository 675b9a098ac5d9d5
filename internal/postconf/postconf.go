// Package postconf helps to read the settings of a Postfix with postconf(1). It runs
// programs of a mail server, and parses their output.
package postconf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// folders are the folders of a mail server's programs. The PATH of root may lack them.
var folders = []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/libexec/postfix"}

// Folders returns the folders of a mail server's programs, in the order of the search.
func Folders() []string { return slices.Clone(folders) }

// Program returns the path of a program of the system.
func Program(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, folder := range folders {
		path := filepath.Join(folder, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("%s is not installed here; looked in %s and PATH", name, strings.Join(folders, ", "))
}

// Settle sets back the times of main.cf and master.cf in a folder that no one else writes
// to. Otherwise each program of Postfix waits until the file that it reads is two seconds
// old, because it may not be complete.
func Settle(dir string) error {
	at := time.Now().Add(-time.Minute)
	for _, name := range []string{"main.cf", "master.cf"} {
		if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// maxOutput bounds how much output of a program is kept.
const maxOutput = 16 << 20

// Run runs a program of the system. Its error includes what the program printed.
func Run(ctx context.Context, name string, args ...string) (stdout, stderr string, err error) {
	return RunAs(ctx, nil, nil, name, args...)
}

// RunAs is like Run, with the rights of another user, unless as is nil, and with more
// variables in the environment.
func RunAs(ctx context.Context, as *syscall.Credential, variables []string, name string, args ...string) (stdout, stderr string, err error) {
	path, err := Program(name)
	if err != nil {
		return "", "", err
	}
	var out, complaint Output
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), variables...)
	if as != nil {
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: as}
	}
	if err = cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // and not that the program was killed
		}
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(complaint.String()+out.String()))
	}
	return out.String(), complaint.String(), err
}

// Output keeps the first maxOutput bytes that are written to it. The zero value is
// empty.
type Output struct{ text bytes.Buffer }

// Write implements io.Writer. It never fails.
func (o *Output) Write(text []byte) (int, error) {
	_, _ = o.text.Write(text[:min(len(text), max(0, maxOutput-o.text.Len()))])
	return len(text), nil
}

func (o *Output) String() string { return o.text.String() }

// Pairs parses lines of the form "name = value".
func Pairs(text string) map[string]string {
	all := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, "="); ok {
			all[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return all
}

const separators = ", \t\r\n"

// Split returns the elements of a list. Postfix separates them by commas or white space
// outside of braces. An element with an unclosed brace extends to the end.
func Split(list string) []string {
	var all []string
	for list = strings.TrimLeft(list, separators); list != ""; list = strings.TrimLeft(list, separators) {
		n := elementEnd(list)
		all = append(all, list[:n])
		list = list[n:]
	}
	return all
}

func elementEnd(list string) int {
	depth := 0
	for i := range len(list) {
		switch c := list[i]; {
		case c == '{':
			depth++
		case c == '}' && depth > 0:
			depth--
		case depth == 0 && strings.IndexByte(separators, c) >= 0:
			return i
		}
	}
	return len(list)
}
