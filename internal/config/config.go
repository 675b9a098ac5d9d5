// Package config turns flags, environment and one file into the settings of a
// daemon, and remembers where each of them came from.
//
// Every setting is a flag. The same name is a key of the TOML file and, in upper
// case with a prefix, an environment variable: --greylist-delay, greylist-delay =
// "3m", POSTERN_POLICYD_GREYLIST_DELAY. A flag overrides the environment, the
// environment overrides the file, and the file overrides the default. A list is
// replaced as a whole by the higher level, never merged.
//
// Invariants:
//
//   - A load starts from nothing: Program.Bind registers all flags on a new flag
//     set, so that a reload cannot inherit anything from the previous state.
//   - Values of a lower level are checked even where a higher level overrides
//     them. So a mistake in the file is an error also while a flag overrides it.
//   - Every error is an *Error: one line, with the origin (file:line, flag or
//     variable) and, where there is one, the fix.
//   - Reads are bounded, and a password in a URL is never repeated.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// ExitConfig is the exit status of a daemon that refuses its configuration
// (EX_CONFIG of sysexits.h; the systemd unit does not restart on it).
const ExitConfig = 78

// Names of the flags that the loader adds to those of the program. They are
// settings of one run, not of the daemon.
const (
	flagConfig  = "config"
	flagCheck   = "check-config"
	flagOnline  = "online"
	flagVersion = "version"
)

// Load returns these together with a Set when the arguments ask for a text
// instead of a daemon. The exit status is then 0.
var (
	ErrHelp    = pflag.ErrHelp
	ErrVersion = errors.New("version asked for")
)

// Program describes what is configured.
type Program struct {
	Name        string // "postern-policyd"
	EnvPrefix   string // "POSTERN_POLICYD_"
	DefaultFile string // read when it exists and --config is not given; "" for none

	// Bind registers every flag of the program. It is called once for each load.
	// It must write to settings made for this load, because a load that fails has
	// already set some of them, and the settings in force must not change.
	Bind func(*pflag.FlagSet)

	// Redact may hide secrets inside a value that only the program can recognise,
	// such as a key in the name of a DNS zone. It is applied to every value and
	// text that leaves this package. Passwords in URLs are always hidden. Nil
	// hides nothing more.
	Redact func(string) string
}

// Set is the outcome of one load: all flags with their values, and the origin
// of each.
type Set struct {
	*pflag.FlagSet
	program Program
	file    string
	check   bool
	online  bool
	version bool
	origins map[string][]Origin
	beaten  []Beaten
}

// Load reads args (without the program's name), environ (as os.Environ returns
// it) and the configuration file. The first of these has the highest precedence.
//
// The error joins up to maxErrors errors of type *Error, each on a line. It is
// ErrHelp or ErrVersion when the arguments ask for that; the Set is then good for
// WriteUsage only.
func Load(p Program, args, environ []string) (*Set, error) {
	s := newSet(p)
	flags, err := s.parseArgs(args)
	if errors.Is(err, ErrHelp) {
		return s, ErrHelp
	}
	if s.version {
		return s, ErrVersion
	}
	var l problems
	l.addError(err)
	variables := s.parseEnviron(environ, &l)
	entries := s.readFile(flags, variables, &l)
	s.beaten = beaten(entries, slices.Concat(variables, flags))
	// Lowest first, so that each level replaces what is below it.
	for _, level := range [][]assignment{entries, variables, flags} {
		for _, a := range level {
			l.addError(s.assign(a))
		}
	}
	if err := l.err(); err != nil {
		return nil, err
	}
	return s, nil
}

func newSet(p Program) *Set {
	fs := pflag.NewFlagSet(p.Name, pflag.ContinueOnError)
	fs.SortFlags = false
	fs.Usage = func() {}
	fs.SetOutput(io.Discard)
	s := &Set{FlagSet: fs, program: p, origins: make(map[string][]Origin)}
	p.Bind(fs)
	fs.StringVar(&s.file, flagConfig, p.DefaultFile, "the configuration `file`, read when it exists; \"\" for none")
	fs.BoolVar(&s.check, flagCheck, false, "check all settings, print them with their origins, and exit")
	fs.BoolVar(&s.online, flagOnline, false, "with check-config: ask the servers of the lookup tables too")
	fs.BoolVar(&s.version, flagVersion, false, "print the version and exit")
	return s
}

// CheckOnly reports whether --check-config was given.
func (s *Set) CheckOnly() bool { return s.check }

// Online reports whether --online was given beside --check-config.
func (s *Set) Online() bool { return s.check && s.online }

// File returns the configuration file that a reload reads: the explicit one, or
// the default one, whether it exists or not, or "" for none.
func (s *Set) File() string { return s.file }

// Origin returns where the value of a flag comes from.
func (s *Set) Origin(flag string) Origin { return s.originAt(flag, 0) }

func (s *Set) originAt(flag string, index int) Origin {
	o := s.origins[flag]
	switch {
	case len(o) == 0:
		return Origin{Level: Default}
	case index < len(o):
		return o[index]
	default:
		return o[0]
	}
}

// Beaten is a setting of the file that has no effect, because a flag or a variable sets
// another value.
type Beaten struct {
	Name   string
	Values []string // in the file
	By     []string // what is in force
	Text   string   // for people, with what to do
}

// Beaten returns the settings of the file that have no effect.
func (s *Set) Beaten() []Beaten { return s.beaten }

// Exposed returns the problem and its fix when every user may write to the file
// or replace it; otherwise "". A user who can change the file can choose the
// programs that the daemon runs.
func (s *Set) Exposed() string {
	if s.file == "" || s.file == os.DevNull {
		return ""
	}
	for _, path := range []string{s.file, filepath.Dir(s.file)} {
		if info, err := os.Stat(path); err == nil && info.Mode()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return fmt.Sprintf("%s has mode %04o; chmod o-w %s", path, info.Mode().Perm(), path)
		}
	}
	return ""
}

func beaten(entries, above []assignment) (all []Beaten) {
	for _, e := range entries {
		for _, a := range slices.Backward(above) {
			if a.flag != e.flag {
				continue
			}
			if !slices.Equal(a.values, e.values) {
				all = append(all, Beaten{e.flag.Name, e.values, a.values, oneLine(fmt.Sprintf("%s: %s has no effect: %s beats it; take it out here, or change it there", e.at(0), e.flag.Name, a.origin))})
			}
			break
		}
	}
	return all
}

// Errorf returns the error of a validator, with the origin of the flag's value in
// front. A name that is not a flag is a bug, and the error shows that.
func (s *Set) Errorf(flag, format string, args ...any) error {
	return s.ErrorfAt(flag, 0, format, args...)
}

// ErrorfAt is Errorf for one element of a list, because an array in the file may
// span many lines.
func (s *Set) ErrorfAt(flag string, index int, format string, args ...any) error {
	if s.Lookup(flag) == nil {
		format = "(no such flag) " + format
	}
	return &Error{Flag: flag, Origin: s.originAt(flag, index), err: fmt.Errorf(format, args...), redact: s.redact}
}

// ChangedFixed returns the names of those fixed flags whose value differs from
// that in old, in the order of fixed. A reload cannot change them.
func (s *Set) ChangedFixed(old *Set, fixed ...string) []string {
	return slices.DeleteFunc(slices.Clone(fixed), func(name string) bool {
		now, before := s.Lookup(name), old.Lookup(name)
		if now == nil || before == nil {
			return now == before
		}
		return slices.Equal(values(now), values(before))
	})
}

// values returns the value of a flag in the form in which it can be set again.
func values(f *pflag.Flag) []string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.GetSlice()
	}
	return []string{f.Value.String()}
}

func (s *Set) redact(text string) string {
	text = hidePasswords(text)
	if s.program.Redact != nil {
		text = s.program.Redact(text)
	}
	return text
}

// settings visits the flags that describe the daemon, in the order of Bind.
func (s *Set) settings(visit func(*pflag.Flag)) {
	s.VisitAll(func(f *pflag.Flag) {
		if isSetting(f.Name) {
			visit(f)
		}
	})
}

func isSetting(name string) bool {
	return name != flagConfig && name != flagCheck && name != flagOnline && name != flagVersion
}

func (s *Set) variable(flag string) string {
	return s.program.EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
