package mark

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-mail/postern/internal/private"
)

const (
	// secretLength is the length of the hash.
	secretLength = 32
	// minSecret is the shortest secret that a file may have.
	minSecret = 16
	// maxKeyFile bounds a file, and maxSecrets its lines.
	maxKeyFile = 4 << 10
	maxSecrets = 8
)

// ReadFile reads a file of secrets, one per line in base64; "#" begins a comment. The
// first secret makes marks, all of them check marks. To replace one, put the new one
// first, and remove the old one a week later. group may read the file too; -1 is
// none.
func ReadFile(path string, group int) (*Keys, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s is not a file of marks' keys; remove it, and one is made at the next start", path)
	}
	if err := private.Check(path, info, group, "the key of marks"); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	k := new(Keys)
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		secret, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(secret) < minSecret {
			return nil, fmt.Errorf("%s:%d: not a key: write at least %d random octets in base64 (openssl rand -base64 %d)", path, n, minSecret, secretLength)
		}
		k.secrets = append(k.secrets, secret)
	}
	if len(k.secrets) == 0 || len(k.secrets) > maxSecrets {
		return nil, fmt.Errorf("%s: has %d keys: write one to %d, a line each", path, len(k.secrets), maxSecrets)
	}
	return k, nil
}

// MakeFile makes a file with a new secret, which only its owner can read. An existing
// file is not changed, also when it appears in the meantime.
func MakeFile(path string) error {
	text := "# Key of the X-Postern-Mark field. Hosts that hand mail to each other share it.\n" +
		base64.StdEncoding.EncodeToString(newSecret()) + "\n"
	draft, err := os.CreateTemp(filepath.Dir(path), ".mark-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	_, err = bytes.NewBufferString(text).WriteTo(draft)
	if err = errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return err
	}
	if err := os.Link(draft.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Random returns keys with a new secret that is stored nowhere else.
func Random() *Keys { return New(newSecret()) }

func newSecret() []byte {
	secret := make([]byte, secretLength)
	_, _ = rand.Read(secret) // it never fails
	return secret
}
