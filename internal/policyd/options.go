// Package policyd is postern-policyd. Flags become settings (options.go), and settings
// become a state (state.go). Requests use the state, and the postern command asks about
// it (app.go). Each check is a part, with its flags, the code that builds it, its
// commands and its metrics (parts.go, and a file or two for each part).
package policyd

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/service"
)

// The values of settings that choose between two.
const (
	wordReject = "reject"
	wordPass   = "pass"
	wordDefer  = "defer"
	wordAll    = "all"
)

// Options are the settings of postern-policyd.
type Options struct {
	config.Common
	Listen   []string // endpoints, each with optional checks: "inet:127.0.0.1:10048=ownership"
	Checks   []string
	Shadow   []string // of Checks, or "all"
	Deadline time.Duration
	rooms    []room
}

func (o *Options) bind(fs *pflag.FlagSet) {
	names := checkNames()
	fs.StringArrayVar(&o.Listen, "listen", []string{"inet:127.0.0.1:10045"}, "`endpoint` that Postfix asks: inet:host:port, unix:path or systemd; with =CHECK,... it is bound to these checks")
	config.Words(fs, &o.Checks, "checks", names, "the checks that run", names...)
	config.Words(fs, &o.Shadow, "shadow", nil, "checks (or all) that are asked and recorded but never change a reply", append(names, wordAll)...)
	config.Duration(fs, &o.Deadline, "deadline", 8*time.Second, 100*time.Millisecond, 90*time.Second, "longest time for one reply")
	o.rooms = rooms()
	for _, r := range o.rooms {
		r.bind(fs)
	}
	o.Common.Bind(fs, config.CommonDefaults{MetricsListen: "inet:127.0.0.1:9145", Admin: "unix:" + api.PolicydSocket})
}

// validate makes the checks that need no I/O, and normalizes domains.
func (o *Options) validate(s *config.Set) error {
	errs := []error{o.Common.Validate(s)}
	if len(o.Checks) == 0 {
		errs = append(errs, s.Errorf("checks", "no check runs: name at least one of %s", strings.Join(checkNames(), ", ")))
	}
	if len(o.Listen) == 0 {
		errs = append(errs, s.Errorf("listen", "nothing to listen on: give an endpoint, such as inet:127.0.0.1:10045"))
	}
	for _, name := range o.Shadow {
		if name != wordAll && !o.runs(name) {
			errs = append(errs, s.Errorf("shadow", "%s is not among the checks that run (%s)", name, strings.Join(o.Checks, ", ")))
		}
	}
	for _, r := range o.rooms {
		if o.runs(r.name) {
			errs = append(errs, r.validate(s))
		}
	}
	return errors.Join(errs...)
}

func (o *Options) runs(check string) bool { return slices.Contains(o.Checks, check) }

// shadowed reports whether a check is only watched.
func (o *Options) shadowed(check string) bool {
	return slices.Contains(o.Shadow, wordAll) || slices.Contains(o.Shadow, check)
}

// settings is one load of the configuration, in the form for the service package.
type settings struct {
	Options
	set *config.Set
}

// configure loads and validates the configuration.
func configure(args, environ []string) (*settings, error) {
	s := new(settings)
	set, err := config.Load(s.program(), args, environ)
	s.set = set
	if err == nil {
		err = s.validate(set)
	}
	return s, err
}

// program describes what can be configured. Its flags write to s.
func (s *settings) program() config.Program {
	return config.Program{
		Name:        api.Policyd,
		EnvPrefix:   "POSTERN_POLICYD_",
		DefaultFile: api.PolicydConfig,
		Bind:        s.bind,
		Redact:      dnsbl.HideKeys,
	}
}

// Program describes the settings of the daemon, for code that writes a file of them.
func Program() config.Program { return new(settings).program() }

func (s *settings) Set() *config.Set       { return s.set }
func (s *settings) Common() *config.Common { return &s.Options.Common }
func (*settings) Fixed() []string          { return []string{"listen"} }

// Sockets returns the sockets of --listen. A word after an endpoint must be a check that
// runs, because otherwise the socket would decide nothing.
func (s *settings) Sockets() ([]daemon.Socket, error) {
	var sockets []daemon.Socket
	for i, endpoint := range s.Listen {
		socket, err := service.Socket(s, "--listen", endpoint)
		if err != nil {
			return nil, err
		}
		for j, name := range socket.Suffix {
			name = strings.ToLower(name)
			socket.Suffix[j] = name
			if !s.runs(name) {
				return nil, s.set.ErrorfAt("listen", i, "%s: %q is none of the checks that run (%s)", endpoint, name, strings.Join(s.Checks, ", "))
			}
		}
		sockets = append(sockets, socket)
	}
	return sockets, nil
}

// Build makes the checks that run.
func (s *settings) Build(l *service.Life, r service.Runtime) (*state, error) { return build(s, l, r) }
