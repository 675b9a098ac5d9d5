package policyd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/service/hosts"
	"github.com/postern-mail/postern/internal/store/redisclient"
)

// Settings returns the settings that the daemon would have with these arguments and
// environment. No daemon has to run.
func Settings(args, environ []string) ([]config.Value, error) {
	s, err := configure(args, environ)
	if err != nil {
		return nil, err
	}
	return s.set.Values(), nil
}

// CheckNames returns the names of all checks, in the order in which they are asked.
func CheckNames() []string { return checkNames() }

// StoreState is the state of one store.
type StoreState struct {
	Setting string // the name of its flag
	Store   string // its value, without secrets
	redisclient.ServerState
	Err error
}

// storer is a part that may keep something in a store.
type storer interface {
	stored() (in storeSetting, used bool)
}

// ProbeStores asks the stores of the daemon with these arguments and environment. It
// changes nothing in them, and opens no file that a daemon may own. An error is
// about the settings. The greylist's store comes before that of limits.
func ProbeStores(ctx context.Context, args, environ []string) ([]StoreState, error) {
	s, err := configure(args, environ)
	if err != nil {
		return nil, err
	}
	var all []StoreState
	for _, setting := range s.stores() {
		state := probeStore(ctx, setting, config.Credentials(environ))
		state.Setting, state.Store = setting.flag, strings.Trim(s.set.Value(setting.flag).Text, `"`)
		all = append(all, state)
	}
	return all, nil
}

// stores returns the settings of the stores that are used, that of the greylist before that
// of limits.
func (o *Options) stores() (all []storeSetting) {
	for _, room := range slices.Backward(o.rooms) {
		part, ok := room.part.(storer)
		if !ok || !o.runs(room.name) {
			continue
		}
		if setting, used := part.stored(); used {
			all = append(all, setting)
		}
	}
	return all
}

func probeStore(ctx context.Context, setting storeSetting, credentials string) StoreState {
	path, isFile := strings.CutPrefix(setting.where, sqliteScheme)
	switch {
	case setting.where == memoryStore:
		return StoreState{ServerState: redisclient.ServerState{Version: "memory of the daemon, lost when it ends"}}
	case isFile:
		return StoreState{ServerState: redisclient.ServerState{Version: "a file, answered from memory"}, Err: lookAtFile(path)}
	}
	password, err := setting.secret(credentials)
	if err != nil {
		return StoreState{Err: err}
	}
	state, err := redisclient.Look(ctx, redisclient.Options{URL: setting.where, Password: password.Reveal()})
	return StoreState{ServerState: state, Err: err}
}

// SharedStores returns which hosts share the stores in Redis that a daemon with these
// arguments and environment has, and what they have written there. It changes nothing. An
// error is about the settings.
func SharedStores(ctx context.Context, args, environ []string) ([]hosts.Shared, error) {
	s, err := configure(args, environ)
	if err != nil {
		return nil, err
	}
	var all []hosts.Shared
	for _, setting := range s.stores() {
		if !strings.Contains(setting.where, "://") {
			continue
		}
		password, err := setting.secret(config.Credentials(environ))
		if err != nil {
			all = append(all, hosts.Shared{Setting: setting.flag, Err: fmt.Errorf("%w: %w", hosts.ErrAway, err)})
			continue
		}
		all = append(all, hosts.Read(ctx, setting.flag, redisclient.Options{URL: setting.where, Password: password.Reveal()}))
	}
	return all, nil
}

// secret reads the password for someone who only looks.
func (s storeSetting) secret(credentials string) (config.Secret, error) {
	if s.passwordFile == "" {
		return config.Secret{}, nil
	}
	return config.SecretFile(s.passwordFile, credentials)
}

// sqliteMagic is the beginning of every SQLite file.
const sqliteMagic = "SQLite format 3\x00"

// lookAtFile returns why a file cannot be a store.
func lookAtFile(path string) error {
	folder := filepath.Dir(path)
	if info, err := os.Stat(folder); err != nil {
		return fmt.Errorf("%w; make the folder and give it to the daemon's user", err)
	} else if !info.IsDir() {
		return fmt.Errorf("%s is no folder; name another file", folder)
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the daemon will create it
	}
	if err != nil {
		return err
	}
	defer file.Close()
	head := make([]byte, len(sqliteMagic))
	n, _ := file.Read(head)
	if n > 0 && string(head[:n]) != sqliteMagic {
		return fmt.Errorf("%s is no file of SQLite; name another file, or move this one away", path)
	}
	return nil
}
