package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/postern-mail/postern/internal/private"
)

// mask is written in place of a secret.
const mask = "***"

// maxSecretSize bounds a file with a secret, in bytes.
const maxSecretSize = 64 << 10

// Secret is a password or key that printing, logging and marshalling never show.
// The zero value is the empty secret.
type Secret struct {
	// A pointer, because for an unexported field of another struct fmt prints the
	// content without calling its methods.
	value *string
}

// NewSecret wraps s.
func NewSecret(s string) Secret { return Secret{&s} }

// Reveal returns the secret itself, for the one call that needs it.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Empty reports whether there is no secret.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// String returns ***.
func (s Secret) String() string { return mask }

// GoString returns ***.
func (s Secret) GoString() string { return mask }

// Format writes *** for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, mask) }

// MarshalText returns ***.
func (s Secret) MarshalText() ([]byte, error) { return []byte(mask), nil }

// MarshalJSON returns "***".
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + mask + `"`), nil }

// Credentials returns the folder of systemd's credentials in an environment, or "".
func Credentials(environ []string) string {
	for _, v := range environ {
		if folder, ok := strings.CutPrefix(v, "CREDENTIALS_DIRECTORY="); ok {
			return folder
		}
	}
	return ""
}

// SecretFile reads a secret: the first line of a file of at most 64 KiB, without
// white space around it. A bare name (no slash) is looked up in credentials, the
// directory that systemd's LoadCredential= names in $CREDENTIALS_DIRECTORY. A
// file that others can read or replace is refused; systemd protects credentials
// itself. Errors name the file, and never have its content. They do not name a
// credential that is missing, because it may be the secret, written into the setting.
func SecretFile(name, credentials string) (Secret, error) {
	path, err := SecretPath(name, credentials)
	if err != nil {
		return Secret{}, err
	}
	data, err := readBounded(path, maxSecretSize)
	switch isFile := strings.Contains(name, "/"); {
	case err == nil && isFile:
		err = checkPrivate(path)
	case err != nil && !isFile && errors.Is(err, fs.ErrNotExist):
		err = &unreadable{noCredential, err}
	}
	if err != nil {
		return Secret{}, err
	}
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimSpace(line)
	switch {
	case len(line) == 0:
		return Secret{}, fmt.Errorf("%s: the first line is empty: put the secret there", path)
	case bytes.IndexByte(line, 0) >= 0:
		return Secret{}, fmt.Errorf("%s: the first line holds a NUL: put the secret there as text", path)
	case bytes.HasPrefix(line, []byte("-----BEGIN ")) && len(rest) > 0:
		return Secret{}, fmt.Errorf("%s: is a PEM file: a secret of one line is expected", path)
	}
	return NewSecret(string(line)), nil
}

// checkPrivate refuses a file that users other than the daemon's user and group
// can read or replace.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	group := os.Getegid()
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		// A command of root reads the secret of a daemon, whose group may read it. The
		// daemon's own check knows this group.
		group = int(sys.Gid)
	}
	return private.Check(path, info, group, "the secret")
}

const (
	noCredentials = "a name without a slash is a credential, but $CREDENTIALS_DIRECTORY is not set: use LoadCredential= of systemd, or an absolute path; if this is the secret itself, put it into a file"
	noCredential  = "there is no credential of this name: add it to the unit with LoadCredential=, or use an absolute path; if this is the secret itself, put it into a file"
)

// SecretPath returns the file that SecretFile reads, for a watcher.
func SecretPath(name, credentials string) (string, error) {
	switch {
	case name == "":
		return "", fmt.Errorf("no file is named")
	case strings.Contains(name, "/"):
		return name, nil
	case credentials == "":
		return "", errors.New(noCredentials)
	case name == "." || name == "..":
		return "", fmt.Errorf("%s is not a file name", name)
	}
	return filepath.Join(credentials, name), nil
}

// CredentialHidden reports whether --check-config cannot read a credential that
// the daemon can read. systemd passes the credentials of a unit to the program of
// ExecStart=. At least up to version 252 it hides them from the check in
// ExecReload=. The reload that follows can read them.
func (s *Set) CredentialHidden(name, credentials string) bool {
	if !s.check || name == "" || strings.Contains(name, "/") || credentials == "" {
		return false
	}
	_, err := os.ReadDir(credentials)
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist)
}
