package doctor

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/setup"
	"github.com/postern-mail/postern/milter/sign"
)

// Facts are what the checks judge.
type Facts struct {
	Options    Options
	Postfix    *Postfix // nil if it cannot be read
	PostfixErr error
	Owner      *daemon.Identity // mail_owner, the user of smtpd and cleanup

	Policyd, Milterd *Daemon
	policySockets    []Listener
	milterSockets    []Listener

	Hooks   []Hook           // of all services; they lead to policyd
	ByTable []Hook           // those of restriction classes that tables may return
	Foreign []Hook           // of all services and such classes; they lead elsewhere
	Milters []AttachedMilter // of all services and of local mail

	loaded func() (*sign.Keys, error)  // returns the keys in files; they are read once
	keys   func() ([]*sign.Key, error) // returns those that milterd signs with

	tables      *sign.Tables // nil if no keys are in Postfix tables
	closeTables func() error
	tablesErr   error // why they cannot be opened; tables are empty then

	DNS    *resolver.Resolver // with the settings of a daemon that needs one
	DNSErr error
}

// AttachedMilter is a milter that Postfix sends mail to.
type AttachedMilter struct {
	Milter
	Service *Service  // nil for mail that does not come over SMTP
	At      place     // where it is
	Ours    *Listener // our socket at that address; nil for none
}

// where names the service that sends its mail to the milter.
func (m AttachedMilter) where() string {
	if m.Service == nil {
		return "non_smtpd_milters"
	}
	return m.Service.String()
}

// list names the parameter in which the milter is.
func (m AttachedMilter) list() string {
	if m.Service == nil {
		return "non_smtpd_milters"
	}
	return "smtpd_milters"
}

// paths are the files of other programs.
type paths struct {
	rspamd   string   // folder
	iredapd  string   // file of settings
	amavis   string   // folder above its files
	keys     string   // folder of rspamd's DKIM keys
	journals string   // folder of postern setup's
	mailLogs []string // files; the first that exists is read
}

// setDefaults sets the paths below root. "" is the whole system.
func (p *paths) setDefaults(root string) {
	if p.iredapd == "" {
		p.iredapd = filepath.Join("/", root, "opt/iredapd/settings.py")
	}
	if p.amavis == "" {
		p.amavis = filepath.Join("/", root)
	}
	if p.rspamd == "" {
		p.rspamd = filepath.Join("/", root, "etc/rspamd")
	}
	if p.keys == "" {
		p.keys = filepath.Join("/", root, "var/lib/rspamd/dkim")
	}
	if p.journals == "" {
		p.journals = setup.DefaultJournal
	}
	if p.mailLogs == nil {
		p.mailLogs = []string{"/var/log/mail.log", "/var/log/maillog", "/var/log/mail"}
	}
}

// kinds returns what differs between the two daemons.
func kinds() (policy, milter daemonKind) {
	// The ownership check needs a table.
	return daemonKind{api.Policyd, api.PolicydSocket, []string{"postern-policyd.socket"}, policyd.Settings, []string{"--config=", "--owners=static:none"}},
		daemonKind{api.Milterd, api.MilterdSocket, []string{"postern-milterd.socket", "postern-milterd-sign.socket"}, milterd.Settings, []string{"--config="}}
}

// gather gathers all facts that do not depend on the findings of a check.
func gather(ctx context.Context, o Options) *Facts {
	o.paths.setDefaults(o.Root)
	if o.now == nil {
		o.now = time.Now
	}
	if o.bounds == (bounds{}) {
		o.bounds = defaultBounds()
	}
	f := &Facts{Options: o}
	policyKind, milterKind := kinds()
	var gathering sync.WaitGroup
	gathering.Go(func() { f.Postfix, f.PostfixErr = readPostfix(ctx, o.ConfigDirectory) })
	gathering.Go(func() { f.Policyd = readDaemon(ctx, policyKind, o.Policyd, o) })
	gathering.Go(func() { f.Milterd = readDaemon(ctx, milterKind, o.Milterd, o) })
	gathering.Wait()
	if f.PostfixErr != nil {
		f.Postfix = nil
	}
	f.openKeyTables()
	f.loaded = sync.OnceValues(f.readKeys)
	f.keys = func() ([]*sign.Key, error) {
		keys, err := f.loaded()
		return keys.Signing(), err
	}
	f.findSockets()
	if f.Postfix != nil {
		f.attach()
		if owner, err := daemon.LookupIdentity(f.Postfix.Params["mail_owner"]); err == nil {
			f.Owner = &owner
		}
	}
	f.openDNS()
	return f
}

// findSockets notes where the daemons listen.
func (f *Facts) findSockets() {
	queue := f.Policyd.text("queue-directory")
	f.policySockets = f.Policyd.listeners("listen", "", queue)
	queue = f.Milterd.text("queue-directory")
	f.milterSockets = slices.Concat(
		f.Milterd.listeners("listen", roleSession, queue),
		f.Milterd.listeners("listen-verify", roleVerify, queue),
		f.Milterd.listeners("listen-sign", roleSign, queue))
	if len(f.milterSockets) == 0 && len(f.Milterd.list("listen"))+len(f.Milterd.list("listen-verify"))+len(f.Milterd.list("listen-sign")) == 0 {
		f.milterSockets = []Listener{
			{place{daemon.NetworkTCP, strings.TrimPrefix(milterd.DefaultListenVerify, "inet:")}, roleVerify, nil},
			{place{daemon.NetworkTCP, strings.TrimPrefix(milterd.DefaultListenSign, "inet:")}, roleSign, nil},
		}
	}
}

// attach finds the hooks and milters of Postfix that lead to the daemons.
func (f *Facts) attach() {
	for _, s := range f.Postfix.smtpds() {
		f.addHooks(&f.Hooks, s.hooks())
		f.addHooks(&f.ByTable, s.throughTables())
		for _, m := range s.milters() {
			f.addMilter(m, s, s.Chroot)
		}
	}
	cleanup := f.Postfix.localCleanup()
	for _, m := range f.Postfix.localMilters() {
		f.addMilter(m, nil, cleanup != nil && cleanup.Chroot)
	}
}

// addHooks adds the hooks that lead to policyd to ours, and the others to Foreign.
func (f *Facts) addHooks(ours *[]Hook, hooks []Hook) {
	for _, h := range hooks {
		if f.isOurs(h) {
			*ours = append(*ours, h)
		} else {
			f.Foreign = append(f.Foreign, h)
		}
	}
}

func (f *Facts) addMilter(m Milter, s *Service, chroot bool) {
	at := f.Postfix.place(m.Endpoint, chroot)
	a := AttachedMilter{Milter: m, Service: s, At: at}
	if i := slices.IndexFunc(f.milterSockets, func(l Listener) bool { return l.serves(at) }); i >= 0 {
		a.Ours = &f.milterSockets[i]
	}
	f.Milters = append(f.Milters, a)
}

// contextWords returns the names of policyd's checks, as policy_context spells them.
func contextWords() []string { return policyd.CheckNames() }

// isOurs reports whether a hook is meant for policyd: it leads there, names checks of
// policyd, or has policyd's default port or our name.
func (f *Facts) isOurs(h Hook) bool {
	return f.policySocket(h) != nil ||
		slices.ContainsFunc(h.Context, func(word string) bool { return slices.Contains(contextWords(), word) }) ||
		strings.HasSuffix(h.Endpoint, ":10045") || hasOurName(h.Endpoint)
}

// policySocket returns the socket of policyd that a hook leads to, or nil.
func (f *Facts) policySocket(h Hook) *Listener {
	at := f.Postfix.place(h.Endpoint, h.Service.Chroot)
	if i := slices.IndexFunc(f.policySockets, func(l Listener) bool { return l.serves(at) }); i >= 0 {
		return &f.policySockets[i]
	}
	return nil
}

// asks returns the checks that a hook asks for.
func (f *Facts) asks(h Hook) []string {
	words := h.Context
	if socket := f.policySocket(h); len(words) == 0 && socket != nil {
		words = socket.Checks
	}
	runs := f.Policyd.list("checks")
	if len(words) == 0 {
		return runs
	}
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return !slices.Contains(runs, w) })
}

// attached reports whether any hook of Postfix asks for a check, if only for mail that a
// table picks.
func (f *Facts) attached(check string) bool {
	return slices.ContainsFunc(slices.Concat(f.Hooks, f.ByTable), func(h Hook) bool { return slices.Contains(f.asks(h), check) })
}

// usesMilterd reports whether Postfix sends any mail to milterd.
func (f *Facts) usesMilterd() bool {
	return slices.ContainsFunc(f.Milters, func(m AttachedMilter) bool { return m.Ours != nil })
}

// openDNS creates a resolver with the settings of a daemon.
func (f *Facts) openDNS() {
	servers := f.Policyd.list("resolver")
	if len(servers) == 0 {
		servers = f.Milterd.list("resolver")
	}
	everywhere := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	f.DNS, f.DNSErr = resolver.New(resolver.Config{Servers: servers, TrustAD: everywhere, Timeout: f.Options.bounds.dns / 4})
}

func (f *Facts) close() {
	_ = f.closeTables() // the tables were only read
	if f.DNSErr == nil {
		f.DNS.Close()
	}
}

// isRoot reports whether the command runs as root, who may look at everything.
func isRoot() bool { return os.Geteuid() == 0 }
