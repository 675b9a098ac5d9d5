// Package owners makes the judge of ownership that both daemons ask: it has the
// flags about owners, validates them, and opens the tables that they name.
package owners

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/postmap/remote"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/lastgood"
	"github.com/postern-mail/postern/internal/service/tables"
)

// The values of the settings with two choices.
const (
	wordReject = "reject"
	wordPass   = "pass"
	wordDefer  = "defer"
)

// Flags are the settings about owners, one field for each flag.
type Flags struct {
	Owners          []string
	Aliases         []string
	FirstMatch      bool
	OnError         string
	Unlisted        string
	Unauthenticated string
	Exempt          []string
	Self            bool
	NullSender      string
	LoginDomain     string
	LocalDomains    []string
	Delimiter       string
	AliasDepth      int

	rewriting
	servers
}

// rewriting are Postfix's settings of the same names.
type rewriting struct {
	AllowPercentHack  bool
	SwapBangpath      bool
	AppendAtMyorigin  bool
	AppendDotMydomain bool
	Myorigin          string
	Mydomain          string
}

// servers are the settings of tables that live in a server.
type servers struct {
	Timeout          time.Duration
	Connections      int
	CacheTTL         time.Duration
	CacheNegativeTTL time.Duration
	CacheSize        int
	LastKnown        time.Duration
}

// Bind adds the flags.
func (f *Flags) Bind(fs *pflag.FlagSet) {
	fs.StringArrayVar(&f.Owners, "owners", nil, "`type:table` of the logins that own a sender, as in smtpd_sender_login_maps; repeat for several")
	fs.StringArrayVar(&f.Aliases, "owner-aliases", nil, "`type:table` of aliases, as in virtual_alias_maps: a login owns the aliases that lead directly to it")
	config.Int(fs, &f.AliasDepth, "owner-alias-depth", 1, 1, ownership.MaxAliasDepth, "how many aliases may follow one another between sender and login; 1 means the direct recipients of an alias")
	fs.BoolVar(&f.FirstMatch, "owners-first-match", false, "the first table that lists a sender decides, as in Postfix, and not a union of all (default true when owners names several tables)")
	f.servers.bind(fs)
	config.Choice(fs, &f.OnError, "owners-on-error", "what happens while the tables cannot be read", wordDefer, wordPass)
	config.Choice(fs, &f.Unlisted, "owners-unlisted", "senders that no table lists", wordReject, wordPass)
	config.Choice(fs, &f.Unauthenticated, "owners-unauthenticated", "listed senders used without login (reject breaks forwarders)", wordPass, wordReject)
	fs.StringArrayVar(&f.Exempt, "owner-exempt", nil, "`login` that may use any sender; repeat for several")
	fs.BoolVar(&f.Self, "owner-self", true, "a login owns its own address without being listed")
	config.Choice(fs, &f.NullSender, "null-sender", "the null sender used by a login", wordPass, wordReject)
	fs.StringVar(&f.LoginDomain, "login-domain", "", "`domain` of logins and alias targets that have none")
	fs.StringArrayVar(&f.LocalDomains, "local-domains", nil, "`domain` whose users may be listed without it, as in mydestination; repeat for several")
	fs.StringVar(&f.Delimiter, "recipient-delimiter", "+", "`characters` that may separate user from extension; \"\" for none")
	f.rewriting.bind(fs)
}

// bind adds the flags about how Postfix completes a sender after it has asked the
// policy service.
func (r *rewriting) bind(fs *pflag.FlagSet) {
	fs.BoolVar(&r.AllowPercentHack, "allow-percent-hack", true, "Postfix takes user%domain for user@domain (allow_percent_hack)")
	fs.BoolVar(&r.SwapBangpath, "swap-bangpath", true, "Postfix takes domain!user for user@domain (swap_bangpath)")
	fs.BoolVar(&r.AppendAtMyorigin, "append-at-myorigin", true, "Postfix completes user to user@myorigin (append_at_myorigin)")
	fs.BoolVar(&r.AppendDotMydomain, "append-dot-mydomain", false, "Postfix completes user@host to user@host.mydomain (append_dot_mydomain)")
	fs.StringVar(&r.Myorigin, "myorigin", "", "`domain` that Postfix appends to a sender without one (postconf -hx myorigin); without it such senders are refused")
	fs.StringVar(&r.Mydomain, "mydomain", "", "`domain` that Postfix appends to a host without one (postconf -hx mydomain)")
}

// bind adds the flags for tables in a server.
func (s *servers) bind(fs *pflag.FlagSet) {
	config.Duration(fs, &s.Timeout, "owners-timeout", remote.DefaultTimeout, 10*time.Millisecond, time.Minute, "longest time for one question to the servers of a table; keep it below deadline")
	config.Int(fs, &s.Connections, "owners-connections", postmap.DefaultMaxConns, 1, 1000, "most connections to the servers of one table")
	config.Duration(fs, &s.CacheTTL, "owners-cache-ttl", time.Minute, 0, 24*time.Hour, "how long an entry of a server's table is remembered; 0 asks each time")
	config.Duration(fs, &s.CacheNegativeTTL, "owners-cache-negative-ttl", 10*time.Second, 0, 24*time.Hour, "how long it is remembered that a server's table has no entry")
	config.Int(fs, &s.CacheSize, "owners-cache-size", remote.DefaultMaxEntries, 16, 1_000_000, "most remembered answers of one table")
	config.Duration(fs, &s.LastKnown, "owners-last-known", 15*time.Minute, 0, 24*time.Hour, "how long an expired answer is used while the servers are down; 0 never")
}

// Validate checks what needs no I/O, and normalises the domains.
func (f *Flags) Validate(s *config.Set) error {
	var errs []error
	if len(f.Owners)+len(f.Aliases) == 0 {
		errs = append(errs, s.Errorf("owners", "the ownership check has no table; run postern setup, set owners or owner-aliases, or take ownership out of checks"))
	}
	if len(f.Owners) > 1 && s.Origin("owners-first-match").Level == config.Default {
		f.FirstMatch = true
	}
	var err error
	for _, one := range []struct {
		flag   string
		domain *string
	}{{"login-domain", &f.LoginDomain}, {"myorigin", &f.Myorigin}, {"mydomain", &f.Mydomain}} {
		if *one.domain == "" {
			continue
		}
		if *one.domain, err = mailaddr.ParseDomain(*one.domain); err != nil {
			errs = append(errs, s.Errorf(one.flag, "%w", err))
		}
	}
	f.LocalDomains = slices.Clone(f.LocalDomains)
	for i, domain := range f.LocalDomains {
		if f.LocalDomains[i], err = mailaddr.ParseDomain(domain); err != nil {
			errs = append(errs, s.ErrorfAt("local-domains", i, "%q: %w", domain, err))
		}
	}
	if f.AppendDotMydomain && f.Mydomain == "" {
		errs = append(errs, s.Errorf("append-dot-mydomain", "what Postfix appends is not known: set mydomain (postconf -hx mydomain)"))
	}
	return errors.Join(errs...)
}

// Deps are what opening the tables needs.
type Deps struct {
	service.Runtime
	Set  *config.Set // names the setting in an error
	Life *service.Life
}

// Opened is what Open has made from the settings.
type Opened struct {
	Judge  *ownership.Judge
	Tables []postmap.Table // of both flags
}

// Open opens the tables, or takes those in force that have not changed, and makes
// the judge from them.
func (f *Flags) Open(d Deps) (*Opened, error) {
	owners, errOwners := f.OpenTables("owners", f.Owners, d)
	aliases, errAliases := f.OpenTables("owner-aliases", f.Aliases, d)
	if err := errors.Join(errOwners, errAliases); err != nil {
		return nil, err
	}
	local := f.LocalDomains
	if f.Myorigin != "" { // Postfix looks up its users without the domain too
		local = append(slices.Clone(local), f.Myorigin)
	}
	decider, err := ownership.New(ownership.Config{
		Owners: owners, Aliases: aliases, FirstMatch: f.FirstMatch, AliasDepth: f.AliasDepth,
		LocalDomains: local, LoginDomain: f.LoginDomain, Delimiters: f.Delimiter, SelfOwned: f.Self,
	})
	if err != nil {
		return nil, err
	}
	d.Life.Watch(decider.Files()...)
	return &Opened{Judge: f.newJudge(decider), Tables: slices.Concat(owners, aliases)}, nil
}

func (f *Flags) newJudge(decider ownership.Asker) *ownership.Judge {
	return &ownership.Judge{
		Owners:                decider,
		Rewriting:             f.rewriter(),
		UnlistedPass:          f.Unlisted == wordPass,
		UnauthenticatedReject: f.Unauthenticated == wordReject,
		NullSenderReject:      f.NullSender == wordReject,
		Exempt:                ownership.NewLogins(f.Exempt, f.LoginDomain),
	}
}

func (f *Flags) rewriter() *mailaddr.Rewriting {
	r := &mailaddr.Rewriting{
		PercentHack: f.AllowPercentHack, SwapBangpath: f.SwapBangpath,
		AppendAtMyorigin: f.AppendAtMyorigin, AppendDotMydomain: f.AppendDotMydomain,
		Myorigin: f.Myorigin, Mydomain: f.Mydomain, Local: make(map[string]bool, len(f.LocalDomains)),
	}
	for _, domain := range f.LocalDomains {
		r.Local[domain] = true
	}
	return r
}

// OpenTables opens the tables of one flag. The error names the origin of the
// setting with the table that failed.
func (f *Flags) OpenTables(flag string, specs []string, d Deps) ([]postmap.Table, error) {
	var opened []postmap.Table
	for i, spec := range specs {
		table, err := f.openTable(spec, d)
		if err != nil {
			return nil, d.Set.ErrorfAt(flag, i, "%w", err)
		}
		opened = append(opened, table)
	}
	if !d.Set.Online() {
		return opened, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), f.Timeout)
	defer cancel()
	return opened, tables.Probe(ctx, d.Set, flag, opened)
}

// tableKey identifies a table by its settings. Its files are checked apart.
type tableKey struct {
	spec string
	servers
}

// openTable opens a table. It returns the one in force while the files and
// settings are the same, or while a new text is not fit to be used. Connections,
// remembered answers and last known answers are then kept.
func (f *Flags) openTable(spec string, d Deps) (postmap.Table, error) {
	return lastgood.Keep(d.Life, d.Runtime, tableKey{spec, f.servers}, lastgood.Reader[postmap.Table]{
		Name:  spec,
		Open:  func() (postmap.Table, error) { return postmap.Open(spec, f.tableOptions(d.Log)) },
		Files: func(t postmap.Table) []string { return t.Files },
		Len:   postmap.Table.Len,
		Close: func(t postmap.Table) error { return postmap.Close(t) },
	})
}

func (f *Flags) tableOptions(log *zap.Logger) postmap.Options {
	return postmap.Options{
		Warn:     func(text string) { log.Warn(text) },
		MaxConns: f.Connections,
		Remote: remote.Config{
			Timeout: f.Timeout, TTL: f.CacheTTL, NegativeTTL: f.CacheNegativeTTL,
			StaleFor: f.LastKnown, MaxEntries: f.CacheSize,
		},
		State: tables.State(log),
	}
}
