package policyd

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/store/redisclient"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// The names of stores that are not in Redis.
const (
	memoryStore  = "memory:"
	sqliteScheme = "sqlite:"
)

// storeSetting is the setting of a store: where it is, and how to open it.
type storeSetting struct {
	flag         string // …-store
	where        string // its value
	passwordFile string // of a …-password-file flag
	passwordFlag string // its name
	example      string // "sqlite:/var/lib/postern/greylist.db"
}

// check checks the setting without I/O.
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

// password reads the file with the password. The file is watched for changes.
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

// openers has a function for each kind of store.
type openers[S any] struct {
	memory func() S
	sqlite func(path string) (S, error)
	redis  func(url, password string) (S, error)
}

// openStore opens a store, and returns it with the name of its kind.
func openStore[S any](s storeSetting, password config.Secret, n *needs, open openers[S]) (store S, kind string, err error) {
	path, isFile := strings.CutPrefix(s.where, sqliteScheme)
	switch {
	case s.where == memoryStore:
		return open.memory(), "memory", nil
	case isFile:
		if err = folderOf(path); err != nil {
			return store, "sqlite", err
		}
		// The daemon that runs owns the file. It is enough to look at the folder.
		if n.set.CheckOnly() {
			return open.memory(), "sqlite", sqlitefile.CheckFolder(path)
		}
		store, err = open.sqlite(path)
		return store, "sqlite", err
	}
	store, err = open.redis(s.where, password.Reveal())
	kind, _, _ = strings.Cut(s.where, "://")
	return store, kind, err
}

// closeStore writes pending changes, and closes a store.
func closeStore(name string, store any) error {
	if s, ok := store.(io.Closer); ok {
		if err := s.Close(); err != nil {
			return fmt.Errorf("the %s store: %w", name, err)
		}
	}
	return nil
}

// showable returns a time in the form for JSON, which has no year after 9999. A file that
// was edited can have any time.
func showable(t time.Time) time.Time {
	first, last := time.Unix(0, 0), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	switch {
	case t.Before(first):
		t = first
	case t.After(last):
		t = last
	}
	return t.UTC()
}

// digestOf returns the digest of a password, for use in a key.
func digestOf(password config.Secret) [sha256.Size]byte {
	return sha256.Sum256([]byte(password.Reveal()))
}

// reportClock returns a function that logs and counts steps of the clock of a store's
// Redis server.
func reportClock(r service.Runtime, store string) func(time.Duration) {
	count := r.Metrics.StoreClockSteps(store)
	return func(by time.Duration) {
		count()
		r.Log.Error("the clock of the Redis server was set, or another server with another clock has taken over: what the "+store+" store keeps ends as much earlier or later; keep the clocks of all Redis hosts the same",
			zap.String("store", store), zap.Stringer("by", by))
	}
}

// storeState is what /readyz says of a store: it works while it answers, also if it can keep
// nothing new.
func storeState(down error, writes bool) (ok bool, detail string) {
	switch {
	case down != nil:
		return false, down.Error()
	case !writes:
		return true, "what is new is not stored; the log and postern doctor say why"
	}
	return true, ""
}

// reportLoss returns a function that logs and counts that a store's server has lost what
// it kept. follows is what follows from it, fix is what to do, beside what Redis needs.
func reportLoss(r service.Runtime, store, follows, fix string) func(time.Duration) {
	count := r.Metrics.StoreLosses(store)
	return func(span time.Duration) {
		count()
		if span > 0 {
			r.Log.Error("the Redis server has older data than before, and what the "+store+" store kept in the time since is lost: a snapshot was restored, or a replica that was far behind has taken over; "+fix+"set appendonly yes in Redis",
				zap.String("store", store), zap.Duration("at_least", span))
			return
		}
		r.Log.Error("the Redis server has lost what the "+store+" store kept, "+follows+": it was restarted without its data or emptied, or it evicts keys; "+fix+"set appendonly yes and maxmemory-policy noeviction in Redis",
			zap.String("store", store))
	}
}

// reportFile returns a function that logs events of a store's file.
func reportFile(r service.Runtime, store string) func(sqlitefile.Event) {
	log := r.Log
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
		case sqlitefile.Reading:
			r.ReadRows(store, e.Rows)
		}
	}
}
