package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"
)

// maxResolvers bounds --resolver: each one is tried in turn within a deadline.
const maxResolvers = 8

// Common are the settings that both daemons have.
type Common struct {
	Resolvers      []string // in the form of netip.AddrPort after Validate; empty means resolv.conf
	DNSTimeout     time.Duration
	LogFormat      string // json or console
	LogFile        string // "" means stderr
	LogLevel       string // info, debug, warn or error
	SocketMode     fs.FileMode
	SocketGroup    string // "" leaves the group alone
	User           string // "" keeps the user that started the daemon
	DrainTimeout   time.Duration
	MaxConns       int    // connections of Postfix at once
	MaxHostConns   int    // of one host that is not this one
	MetricsListen  string // endpoint; "" for none
	Admin          string // endpoint; "" for none
	AdminMode      fs.FileMode
	AdminGroup     string // "" leaves the group alone
	Status         Status
	QueueDirectory string // what relative unix: paths are relative to
	TrustedRelays  []string
	Relays         []netip.Prefix // TrustedRelays after Validate
}

// Status are the settings of the status page.
type Status struct {
	Listen    string   // endpoint; "" for none
	Peers     []string // addresses of the pages of other daemons
	Names     []string
	Privacy   bool
	TokenFile string // "" for none
}

// fixed returns the names of the flags of the page, which a reload cannot change.
func (*Status) fixed() []string {
	return []string{"status-listen", "status-peers", "status-names", "status-privacy", "status-token-file"}
}

func (s *Status) bind(fs *pflag.FlagSet) {
	fs.StringVar(&s.Listen, "status-listen", "", "`endpoint` of the status page for browsers, as inet:127.0.0.1:9147 (default none)")
	fs.StringArrayVar(&s.Peers, "status-peers", nil, "`address` of the status page of another daemon that is shown too, as http://192.0.2.7:9148; repeat for several")
	fs.StringArrayVar(&s.Names, "status-names", nil, "`name` under which browsers may ask for the page, beside addresses; repeat for several")
	fs.BoolVar(&s.Privacy, "status-privacy", false, "show neither mail addresses nor logins on the page, and of IP addresses only the network")
	fs.StringVar(&s.TokenFile, "status-token-file", "", "`file` with the token that the page asks for, needed outside loopback; a bare name is a systemd credential")
}

// CommonDefaults are the defaults that differ between the daemons.
type CommonDefaults struct {
	MetricsListen string        // "inet:127.0.0.1:9145"
	Admin         string        // "unix:/run/postern/policyd.sock"
	DrainTimeout  time.Duration // 0 means 30s
}

// drainTimeout is long enough for any single request.
const drainTimeout = 30 * time.Second

// Fixed returns the names of the common flags that a reload cannot change,
// because sockets are bound and privileges are given up. They are for
// ChangedFixed.
func (*Common) Fixed() []string {
	return append([]string{"socket-mode", "socket-group", "max-connections", "max-connections-per-host", "user", "metrics-listen", "admin", "admin-mode", "admin-group", "queue-directory"}, (*Status)(nil).fixed()...)
}

// Bind registers the common flags.
func (c *Common) Bind(fs *pflag.FlagSet, d CommonDefaults) {
	fs.StringArrayVar(&c.Resolvers, "resolver", nil, "DNS server to ask, `host:port`; repeat for several (default those of resolv.conf)")
	Duration(fs, &c.DNSTimeout, "dns-timeout", 2*time.Second, 100*time.Millisecond, 30*time.Second, "how long one DNS query may take")
	Choice(fs, &c.LogFormat, "log-format", "how log lines are written", "json", "console")
	fs.StringVar(&c.LogFile, "log-file", "", "log to this `file`, reopened on SIGHUP (default stderr)")
	Choice(fs, &c.LogLevel, "log-level", "least important lines that are written; decisions are info", "info", "debug", "warn", "error")
	Mode(fs, &c.SocketMode, "socket-mode", 0o660, "permissions of unix sockets, except the admin socket")
	fs.StringVar(&c.SocketGroup, "socket-group", "", "`group` of unix sockets, except the admin socket (default that of the process)")
	fs.StringVar(&c.User, "user", "", "`user` to become once the listeners are bound (default none)")
	Duration(fs, &c.DrainTimeout, "drain-timeout", cmp.Or(d.DrainTimeout, drainTimeout), 0, day, "how long to wait for work in progress when stopping")
	Int(fs, &c.MaxConns, "max-connections", 2000, 16, 100000, "connections of Postfix that are open at once")
	Int(fs, &c.MaxHostConns, "max-connections-per-host", 1000, 1, 100000, "the same for one host that is not this machine")
	fs.StringVar(&c.MetricsListen, "metrics-listen", d.MetricsListen, "`endpoint` of /metrics, /healthz and /readyz; \"\" for none")
	fs.StringVar(&c.Admin, "admin", d.Admin, "`endpoint` that the postern command talks to; \"\" for none")
	Mode(fs, &c.AdminMode, "admin-mode", 0o660, "permissions of the admin socket")
	fs.StringVar(&c.AdminGroup, "admin-group", "", "`group` of the admin socket, whose members may change what the daemon knows (default that of the process)")
	c.Status.bind(fs)
	fs.StringVar(&c.QueueDirectory, "queue-directory", "/var/spool/postfix", "Postfix's queue_`directory`, below which relative unix: paths are")
	fs.StringArrayVar(&c.TrustedRelays, flagRelays, nil, "`network` of your own relays, a backup MX for instance, as 192.0.2.0/24: neither greylisted nor looked up in lists, and their client is verified in their place; repeat for several")
}

// Validate checks what needs no I/O, and brings the resolvers into the form
// address:port. The syntax of endpoints is checked when they are bound.
func (c *Common) Validate(s *Set) error {
	var l problems
	c.validateResolvers(s, &l)
	if c.LogFile != "" && !filepath.IsAbs(c.LogFile) {
		l.addError(s.Errorf("log-file", "%q is relative: write it from the root, a daemon has no directory of its own", c.LogFile))
	}
	if !filepath.IsAbs(c.QueueDirectory) {
		l.addError(s.Errorf("queue-directory", "%q is relative: write what postconf -h queue_directory prints", c.QueueDirectory))
	}
	var err error
	c.Relays, err = s.Networks(flagRelays, c.TrustedRelays)
	l.addError(err)
	for i, network := range c.Relays {
		if network.IsValid() && network.Addr().Unmap().IsLoopback() {
			l.addError(s.ErrorfAt(flagRelays, i, "%s: everyone on this machine sends from a loopback address; leave it out, mail that a content filter hands back is known by its mark (mark-key-file)", network))
		}
	}
	return l.err()
}

const flagRelays = "trusted-relays"

func (c *Common) validateResolvers(s *Set, l *problems) {
	if len(c.Resolvers) > maxResolvers {
		l.addError(s.Errorf("resolver", "%d resolvers: at most %d are used", len(c.Resolvers), maxResolvers))
		return
	}
	c.Resolvers = slices.Clone(c.Resolvers)
	for i, r := range c.Resolvers {
		a, err := parseResolver(r)
		if err != nil {
			l.addError(s.ErrorfAt("resolver", i, "%w", err))
			continue
		}
		c.Resolvers[i] = a.String()
	}
}

// parseResolver parses address:port, or a bare address, for which it takes port
// 53. A host name is refused, because looking it up needs a resolver.
func parseResolver(r string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(r); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	a, err := netip.ParseAddrPort(r)
	if err != nil || a.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is not the address of a DNS server: write 127.0.0.1:53 or [::1]:53", r)
	}
	return a, nil
}
