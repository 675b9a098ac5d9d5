package milterd

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/lastgood"
	"github.com/postern-mail/postern/milter/mark"
)

// defaultMarkKey is in the folder that systemd creates for the daemon.
const defaultMarkKey = "/var/lib/postern/mark.key"

// markPart is the part for the marks by which we recognize mail that we have verified.
type markPart struct {
	MarkKeyFile string

	file string     // MarkKeyFile as a path
	keys *mark.Keys // may be nil
}

func (o *markPart) bind(fs *pflag.FlagSet) {
	fs.StringVar(&o.MarkKeyFile, "mark-key-file", defaultMarkKey, "`file` with the key of the "+mark.Field+" field, by which mail that comes back is recognised; made when it is missing; all hosts that hand mail to each other need the same; a name without a slash is a credential of systemd's; \"\" for no marks")
}

func (o *markPart) validate(s *config.Set) (err error) {
	if o.file, err = secretPath(o.MarkKeyFile); err != nil {
		return s.Errorf("mark-key-file", "%w", err)
	}
	return nil
}

// build passes the keys to both roles. If the default file cannot be made, marks are
// valid until the daemon ends. A file that a flag names must be usable.
func (o *markPart) build(n *needs) error {
	if o.file == "" || hidden(n.set, o.MarkKeyFile) {
		return nil
	}
	byDefault := n.set.Origin("mark-key-file").Level == config.Default
	keys, err := o.open(n)
	switch {
	case err == nil:
		n.life.Watch(o.file)
	case n.readOnly && errors.Is(err, fs.ErrNotExist) && !isCredential(o.MarkKeyFile) && (byDefault || !missing(filepath.Dir(o.file))):
		return nil // the daemon will make it, or run without it
	case !byDefault || !unavailable(err):
		return n.set.Errorf("mark-key-file", "%w", err)
	default:
		n.warn("no file for the key of marks: mail that comes back after a restart, or from another host, is not known; name one with mark-key-file", zap.Error(err))
		if keys, err = service.Keep(n.life, randomMarkKey{}, func() (service.Opened[*mark.Keys], error) {
			return service.Opened[*mark.Keys]{Value: mark.Random()}, nil
		}); err != nil {
			return err
		}
	}
	o.keys, n.marks = keys, keys
	return nil
}

func (*markPart) without() string { return "the key of marks cannot be read, so that no mark counts" }

type randomMarkKey struct{}

// open reads the file, and creates it if it is missing. While the file is being
// written, the keys in force stay in use.
func (o *markPart) open(n *needs) (*mark.Keys, error) {
	return lastgood.Keep(n.life, n.Runtime, markKey{o.file, n.options.group()}, lastgood.Reader[*mark.Keys]{
		Name:  o.file,
		Open:  func() (*mark.Keys, error) { return o.read(n) },
		Files: func(*mark.Keys) []string { return []string{o.file} },
		Len:   func(*mark.Keys) int { return -1 }, // one is enough
	})
}

// markKey describes how the keys of marks are read.
type markKey struct {
	path  string
	group int
}

// read reads the file, and creates it if it is missing.
func (o *markPart) read(n *needs) (*mark.Keys, error) {
	keys, err := mark.ReadFile(o.file, n.options.group())
	if !errors.Is(err, fs.ErrNotExist) || n.readOnly || isCredential(o.MarkKeyFile) {
		return keys, err
	}
	if err := mark.MakeFile(o.file); err != nil {
		return nil, &noPlace{err}
	}
	n.Log.Info("made the key of marks; copy it to the hosts that hand mail to this one", zap.String("mark_key_file", o.file))
	return mark.ReadFile(o.file, n.options.group())
}

// noPlace is the error for a file that could not be made: there is no folder, or the
// disk is full or read-only.
type noPlace struct{ error }

func (e *noPlace) Unwrap() error { return e.error }

// unavailable reports whether the file could not be read or made, as opposed to a fault
// in its content.
func unavailable(err error) bool {
	var made *noPlace
	return errors.As(err, &made) || errors.Is(err, fs.ErrPermission)
}
