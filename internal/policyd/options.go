// Package policyd is postern-policyd: flags become settings (options.go and a
// file for each check), settings become a state (state.go), requests reach it
// (app.go), and the postern command asks about it (admin.go).
package policyd

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// The words of the settings that choose between two.
const (
	wordReject = "reject"
	wordPass   = "pass"
	wordDefer  = "defer"
	wordAll    = "all"
)

// part is one check's share of the daemon: its flags, what must hold between
// them, and how the check is made of them.
type part struct {
	name     string
	bind     func(*Options, *pflag.FlagSet)
	validate func(*Options, *config.Set) error
	build    func(*state, service.Runtime) (policy.Entry, error)
}

// parts is every check, in the order in which the chain asks them.
func parts() []part {
	return []part{
		{checks.OwnershipName, (*Options).bindOwnership, (*Options).validateOwnership, (*state).buildOwnership},
		{checks.DNSBLName, (*Options).bindDNSBL, (*Options).validateDNSBL, (*state).buildDNSBL},
		{checks.GreylistName, (*Options).bindGreylist, (*Options).validateGreylist, (*state).buildGreylist},
	}
}

func checkNames() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// Options are the settings of postern-policyd.
type Options struct {
	config.Common
	Listen   []string // endpoints, each with optional checks: "inet:127.0.0.1:10048=ownership"
	Checks   []string
	Shadow   []string // of Checks, or "all"
	Deadline time.Duration
	ownershipOptions
	dnsblOptions
	greylistOptions
}

func (o *Options) bind(fs *pflag.FlagSet) {
	names := checkNames()
	fs.StringArrayVar(&o.Listen, "listen", []string{"inet:127.0.0.1:10045"}, "`endpoint` that Postfix asks: inet:host:port, unix:path or systemd; with =CHECK,... it is bound to these checks")
	config.Words(fs, &o.Checks, "checks", names, "the checks that run", names...)
	config.Words(fs, &o.Shadow, "shadow", nil, "checks (or all) that are asked and recorded but never change a reply", append(names, wordAll)...)
	config.Duration(fs, &o.Deadline, "deadline", 8*time.Second, 100*time.Millisecond, 90*time.Second, "longest time for one reply")
	for _, p := range parts() {
		p.bind(o, fs)
	}
	o.Common.Bind(fs, config.CommonDefaults{MetricsListen: "inet:127.0.0.1:9145", Admin: "unix:" + DefaultAdminPath})
}

// validate checks what needs no I/O and brings domains into their one form.
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
	for _, p := range parts() {
		if o.runs(p.name) {
			errs = append(errs, p.validate(o, s))
		}
	}
	return errors.Join(errs...)
}

func (o *Options) runs(check string) bool { return slices.Contains(o.Checks, check) }

// shadowed tells whether a check is only watched.
func (o *Options) shadowed(check string) bool {
	return slices.Contains(o.Shadow, wordAll) || slices.Contains(o.Shadow, check)
}

// settings is one load of the configuration, as the service package wants it.
type settings struct {
	Options
	set     *config.Set
	current *current // where a state of these settings comes into force
}

// configure loads and validates.
func configure(args, environ []string) (*settings, error) {
	s := new(settings)
	set, err := config.Load(config.Program{
		Name:        ProgramName,
		EnvPrefix:   "POSTERN_POLICYD_",
		DefaultFile: "/etc/postern/policyd.toml",
		Bind:        s.bind,
		Redact:      dnsbl.HideKeys,
	}, args, environ)
	s.set = set
	if err == nil {
		err = s.validate(set)
	}
	return s, err
}

func (s *settings) Set() *config.Set       { return s.set }
func (s *settings) Common() *config.Common { return &s.Options.Common }
func (*settings) Fixed() []string          { return []string{"listen"} }

// Sockets gives those of --listen. A word behind an endpoint must be a check
// that runs, or Postfix would be asked in vain.
func (s *settings) Sockets() ([]daemon.Socket, error) {
	var sockets []daemon.Socket
	for i, endpoint := range s.Listen {
		socket, err := service.Socket(s, "--listen", endpoint)
		if err != nil {
			return nil, err
		}
		for _, name := range socket.Suffix {
			if !s.runs(name) {
				return nil, s.set.ErrorfAt("listen", i, "%s: %q is none of the checks that run (%s)", endpoint, name, strings.Join(s.Checks, ", "))
			}
		}
		sockets = append(sockets, socket)
	}
	return sockets, nil
}

// Build makes the checks that run.
func (s *settings) Build(r service.Runtime) (service.State, error) {
	state, err := build(s, r)
	if err != nil {
		return nil, err
	}
	return state, nil
}

// warner gives the tables' warnings to the log.
func warner(log *zap.Logger) func(string) {
	return func(text string) { log.Warn(text) }
}
