// Package milterd is postern-milterd. Flags become settings (options.go), and settings
// become a state (state.go). Connections use the state, and the postern command asks
// about it (app.go). Each task of the daemon is a part, with its flags, the code that
// builds it, its commands and its metrics (parts.go, and a file or two for each part).
//
// Each listener decides whose mail comes in. Our own mail is signed (sign.go), other
// mail is verified (verify.go, dmarc.go). All parts ask the DNS through one resolver.
// keydns.go watches whether our own keys are in the DNS.
package milterd

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/milter"
)

// Names of the flags for sockets. The socket decides whose mail comes in.
const (
	flagListen       = "listen"
	flagListenVerify = "listen-verify"
	flagListenSign   = "listen-sign"
)

// The default sockets.
const (
	DefaultListenVerify = "inet:127.0.0.1:10046"
	DefaultListenSign   = "inet:127.0.0.1:10047"
)

// Values of --on-error.
const (
	wordAccept   = "accept"
	wordTempfail = "tempfail"
)

// Values of --shadow.
const (
	wordSPF   = "spf"
	wordDMARC = "dmarc"
	wordAll   = "all"
)

// defaultDrainTimeout is longer than most sessions: smtpd(8) ends a session that is
// silent for 300 s (smtpd_timeout).
const defaultDrainTimeout = 10 * time.Minute

// Options are the settings of postern-milterd.
type Options struct {
	config.Common
	Listen       []string // endpoints for both; the session decides whose mail it is
	ListenVerify []string // endpoints for mail from outside only
	ListenSign   []string // endpoints for our own mail only

	Originating      []string
	InternalNetworks []string
	AuthservID       string // "" means the name that the MTA uses for itself
	OnError          string
	Shadow           []string // of spf, dmarc, all

	internal []netip.Prefix // InternalNetworks
	idle     []error        // settings without effect
	rooms    []room
}

func (o *Options) bind(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.Listen, flagListen, nil, "`endpoint` for any mail: signed when the client has logged in, or by --originating or --internal-networks; else verified")
	fs.StringArrayVar(&o.ListenVerify, flagListenVerify, nil, "`endpoint` for other people's mail: nothing is signed (default, when no listener is given, "+DefaultListenVerify+")")
	fs.StringArrayVar(&o.ListenSign, flagListenSign, nil, "`endpoint` for our own mail: everything is signed (default, when no listener is given, "+DefaultListenSign+")")
	fs.StringArrayVar(&o.Originating, "originating", []string{"ORIGINATING"}, "milter_macro_daemon_`name` of the services whose mail is ours, on --listen; repeat for several")
	fs.StringArrayVar(&o.InternalNetworks, "internal-networks", nil, "`network` whose mail is ours, on --listen, as 192.0.2.0/24; repeat for several")
	fs.StringVar(&o.AuthservID, "authserv-id", "", "`name` under which verdicts are written into Authentication-Results (default the MTA's own)")
	config.Choice(fs, &o.OnError, "on-error", "mail that could not be judged because of an error", wordAccept, wordTempfail)
	config.Words(fs, &o.Shadow, "shadow", nil, "what is judged and recorded but never changes a reply or a mail", wordSPF, wordDMARC, wordAll)
	o.rooms = rooms()
	for _, r := range o.rooms {
		r.bind(fs)
	}
	o.Common.Bind(fs, config.CommonDefaults{
		MetricsListen: "inet:127.0.0.1:9146",
		Admin:         "unix:" + api.MilterdSocket,
		DrainTimeout:  defaultDrainTimeout,
	})
}

// validate makes the checks that need no I/O, and normalizes names.
func (o *Options) validate(s *config.Set) error {
	var err error
	errs := []error{o.Common.Validate(s)}
	o.internal, err = s.Networks("internal-networks", o.InternalNetworks)
	errs = append(errs, err)
	if len(o.Listen)+len(o.ListenVerify)+len(o.ListenSign) == 0 {
		o.ListenVerify, o.ListenSign = []string{DefaultListenVerify}, []string{DefaultListenSign}
	}
	if o.AuthservID != "" {
		id, err := mailaddr.ParseDomain(o.AuthservID)
		if err != nil {
			errs = append(errs, s.Errorf("authserv-id", "%q: %w", o.AuthservID, err))
		}
		o.AuthservID = id
	}
	for _, r := range o.rooms {
		errs = append(errs, r.validate(s))
	}
	o.idle = o.findIdle(s)
	if s.CheckOnly() {
		errs = append(errs, o.idle...)
	}
	return errors.Join(errs...)
}

// shadowed reports whether a verdict is only watched.
func (o *Options) shadowed(what string) bool {
	return slices.Contains(o.Shadow, wordAll) || slices.Contains(o.Shadow, what)
}

// milterDrain returns how long sessions may continue while the daemon drains: half of
// a short --drain-timeout, most of a long one. The rest is for the message that is
// being received then.
func (o *Options) milterDrain() time.Duration {
	return max(o.DrainTimeout-milter.DefaultFinishTimeout-drainMargin, o.DrainTimeout/2, time.Nanosecond)
}

// drainMargin is the time for receiving the body of that message.
const drainMargin = 10 * time.Second

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
		Name:        api.Milterd,
		EnvPrefix:   "POSTERN_MILTERD_",
		DefaultFile: api.MilterdConfig,
		Bind:        s.bind,
	}
}

// Program describes the settings of the daemon, for code that writes a file of them.
func Program() config.Program { return new(settings).program() }

func (s *settings) Set() *config.Set       { return s.set }
func (s *settings) Common() *config.Common { return &s.Options.Common }
func (*settings) Fixed() []string          { return []string{flagListen, flagListenVerify, flagListenSign} }

// listeners returns the flags of the sockets, and the kind of mail of each.
func (o *Options) listeners() []struct {
	flag      string
	kind      milter.Listen
	endpoints []string
} {
	return []struct {
		flag      string
		kind      milter.Listen
		endpoints []string
	}{
		{flagListen, milter.BySession, o.Listen},
		{flagListenVerify, milter.VerifyOnly, o.ListenVerify},
		{flagListenSign, milter.SignOnly, o.ListenSign},
	}
}

// kind returns the kind of mail that comes in through the sockets of a flag.
func kind(flag string) milter.Listen {
	for _, l := range new(Options).listeners() {
		if "--"+l.flag == flag {
			return l.kind
		}
	}
	return milter.BySession
}

// Sockets returns the sockets of all three flags.
func (s *settings) Sockets() ([]daemon.Socket, error) {
	var sockets []daemon.Socket
	for _, l := range s.listeners() {
		for i, endpoint := range l.endpoints {
			socket, err := service.Socket(s, "--"+l.flag, endpoint)
			if err != nil {
				return nil, err
			}
			if len(socket.Suffix) > 0 {
				return nil, s.set.ErrorfAt(l.flag, i, "%s: nothing may follow the address", endpoint)
			}
			sockets = append(sockets, socket)
		}
	}
	return sockets, nil
}

// Build makes the handlers of all roles.
func (s *settings) Build(l *service.Life, r service.Runtime) (*state, error) { return build(s, l, r) }

// warnings returns texts about settings that are allowed but risky.
func (o *Options) warnings() []string {
	var all []string
	if o.signsLoopback() {
		all = append(all, "internal-networks holds a loopback address: what a content filter hands back is then signed, whoever sent it")
	}
	for _, endpoint := range slices.Concat(o.Listen, o.ListenSign) {
		if wide(endpoint) {
			all = append(all, endpoint+": every program that reaches this address gets mail signed; use a loopback address or a unix socket")
		}
	}
	return all
}

// signsLoopback reports whether mail from this machine counts as ours.
func (o *Options) signsLoopback() bool {
	return len(o.Listen) > 0 && slices.ContainsFunc(o.internal, func(p netip.Prefix) bool { return p.Addr().IsLoopback() })
}

// wide reports whether an endpoint is bound to every address of the machine.
func wide(endpoint string) bool {
	return strings.HasPrefix(endpoint, "inet:0.0.0.0:") || strings.HasPrefix(endpoint, "inet:[::]:")
}
