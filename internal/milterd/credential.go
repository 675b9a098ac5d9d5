package milterd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-mail/postern/internal/config"
)

// isCredential reports whether a setting is the name of a systemd credential
// (LoadCredential=) and not a path.
func isCredential(name string) bool { return name != "" && !strings.Contains(name, "/") }

// hidden reports whether a credential cannot be checked. See
// [config.Set.CredentialHidden].
func hidden(s *config.Set, name string) bool {
	return s.CredentialHidden(name, os.Getenv("CREDENTIALS_DIRECTORY"))
}

// secretPath returns the path of a file or folder with secrets. A name without a slash
// is a credential of the service.
func secretPath(name string) (string, error) {
	credentials := os.Getenv("CREDENTIALS_DIRECTORY")
	switch {
	case name == "", filepath.IsAbs(name):
		return name, nil
	case isCredential(name) && credentials != "":
		return config.SecretPath(name, credentials)
	case isCredential(name):
		return "", fmt.Errorf("%q is relative: write it from the root, a daemon has no directory of its own; for a credential of that name, add LoadCredential=%s:PATH to the unit", name, name)
	}
	return "", fmt.Errorf("%q is relative: write it from the root, a daemon has no directory of its own", name)
}
