package policyd

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/store/redisclient"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// Stores that are not in Redis.
const (
	memoryStore  = "memory:"
	sqliteScheme = "sqlite:"
)

// storeSetting is where something is kept, and what opens it.
type storeSetting struct {
	where        string // the value of a …-store flag
	passwordFile string // of a …-password-file flag
	passwordFlag string // its name
	example      string // "sqlite:/var/lib/postern/greylist.db"
}

// check needs no I/O.
func (s storeSetting) check() error {
	path, isFile := strings.CutPrefix(s.where, sqliteScheme)
	switch {
	case s.where == memoryStore, isFile:
		if isFile && (path == "" || strings.ContainsRune(path, 0)) {
			return errors.New("no path: write " + s.example)
		}
		if s.passwordFile != "" {
			return fmt.Errorf("%s is for Redis: take it out, or name a Redis server here", s.passwordFlag)
		}
		return nil
	case strings.Contains(s.where, "://"):
		return redisclient.CheckURL(s.where)
	}
	return fmt.Errorf("%q is no store: write sqlite:PATH, memory: or a URL of Redis", s.where)
}

// password reads the file with the password, and has it watched.
func (s storeSetting) password(n *needs) (config.Secret, error) {
	name, credentials := s.passwordFile, os.Getenv("CREDENTIALS_DIRECTORY")
	if name == "" || n.set.CredentialHidden(name, credentials) {
		return config.Secret{}, nil
	}
	path, err := config.SecretPath(name, credentials)
	if err != nil {
		return config.Secret{}, n.set.Errorf(s.passwordFlag, "%w", err)
	}
	n.life.Watch(path)
	secret, err := config.SecretFile(name, credentials)
	if err != nil {
		return secret, n.set.Errorf(s.passwordFlag, "%w", err)
	}
	return secret, nil
}

// digestOf is a password as a part of a key.
func digestOf(password config.Secret) [sha256.Size]byte {
	return sha256.Sum256([]byte(password.Reveal()))
}

// reportFile logs what happens to a store's file.
func reportFile(log *zap.Logger, store string) func(sqlitefile.Event) {
	return func(e sqlitefile.Event) {
		path := zap.String("path", e.Path)
		switch e.Kind {
		case sqlitefile.SetAside:
			log.Error("what was at the path of the "+store+" file is not usable: it was renamed, and what memory knows goes into a new file", path, zap.String("renamed_to", e.Aside), zap.Error(e.Err))
		case sqlitefile.Gone:
			log.Error("the "+store+" file was removed: what memory knows goes into a new one", path)
		case sqlitefile.Replaced:
			log.Warn("the "+store+" file was written or replaced by another program: what memory knows was added to what is there", path, zap.Error(e.Err))
		case sqlitefile.WriteFailing:
			log.Error("the "+store+" file cannot be written: what is new is kept in memory", path, zap.Error(e.Err))
		case sqlitefile.WritingAgain:
			log.Info("the "+store+" file is written again", path)
		}
	}
}
