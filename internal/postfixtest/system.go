package postfixtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// ids are the accounts that the Debian packages create.
type ids struct{ postfix, postdrop int }

func lookupIDs() (ids, error) {
	u, err := user.Lookup("postfix")
	if err != nil {
		return ids{}, fmt.Errorf("is Postfix installed? %w", err)
	}
	g, err := user.LookupGroup("postdrop")
	if err != nil {
		return ids{}, fmt.Errorf("is Postfix installed? %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return ids{}, fmt.Errorf("uid of postfix: %w", err)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return ids{}, fmt.Errorf("gid of postdrop: %w", err)
	}
	return ids{postfix: uid, postdrop: gid}, nil
}

// Check returns why a private Postfix cannot run here, or nil.
func Check() error {
	if os.Geteuid() != 0 {
		return errNotRoot
	}
	if _, err := lookupIDs(); err != nil {
		return err
	}
	for _, tool := range []string{"postconf", "postqueue", "dovecot"} {
		if _, err := systemTool(tool); err != nil {
			return err
		}
	}
	return nil
}

// systemTool finds a program of the packages. Many PATHs lack its folder /usr/sbin.
func systemTool(name string) (string, error) {
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/bin"} {
		if path := filepath.Join(dir, name); isExecutable(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is not installed (.ci/setup installs it): %w", name, err)
	}
	return path, nil
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// masterPath asks Postfix for the compiled-in folder of its daemons. It does not read
// the system's main.cf.
func masterPath(ctx context.Context) (string, error) {
	postconf, err := systemTool("postconf")
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, postconf, "-d", "-h", "daemon_directory").Output()
	if err != nil {
		return "", fmt.Errorf("postconf -d daemon_directory: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "master"), nil
}
