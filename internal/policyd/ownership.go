package policyd

import (
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
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// ownershipPart is the room of the ownership check.
type ownershipPart struct {
	Owners                []string
	OwnerAliases          []string
	OwnersOnError         string
	OwnersUnlisted        string
	OwnersUnauthenticated string
	OwnerExempt           []string
	OwnerSelf             bool
	NullSender            string
	LoginDomain           string
	LocalDomains          []string
	RecipientDelimiter    string
	OwnerAliasDepth       int

	OwnersTimeout          time.Duration
	OwnersConnections      int
	OwnersCacheTTL         time.Duration
	OwnersCacheNegativeTTL time.Duration
	OwnersCacheSize        int
	OwnersLastKnown        time.Duration

	tables []postmap.Table // of both flags
	check  *checks.Ownership
	shadow bool
}

func (o *ownershipPart) bind(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.Owners, "owners", nil, "`type:table` of the logins that own a sender, as in smtpd_sender_login_maps; repeat for several")
	fs.StringArrayVar(&o.OwnerAliases, "owner-aliases", nil, "`type:table` of aliases, as in virtual_alias_maps: a login owns the aliases that lead straight to it")
	config.Int(fs, &o.OwnerAliasDepth, "owner-alias-depth", 1, 1, ownership.MaxAliasDepth, "how many aliases may lie behind each other between sender and login; 1 is the direct recipients of an alias")
	o.bindServers(fs)
	config.Choice(fs, &o.OwnersOnError, "owners-on-error", "what happens while the tables cannot be read", wordDefer, wordPass)
	config.Choice(fs, &o.OwnersUnlisted, "owners-unlisted", "senders that no table lists", wordReject, wordPass)
	config.Choice(fs, &o.OwnersUnauthenticated, "owners-unauthenticated", "listed senders used without login (reject breaks forwarders)", wordPass, wordReject)
	fs.StringArrayVar(&o.OwnerExempt, "owner-exempt", nil, "`login` that may use any sender; repeat for several")
	fs.BoolVar(&o.OwnerSelf, "owner-self", true, "a login owns its own address without being listed")
	config.Choice(fs, &o.NullSender, "null-sender", "the null sender used by a login", wordPass, wordReject)
	fs.StringVar(&o.LoginDomain, "login-domain", "", "`domain` of logins and alias targets that have none")
	fs.StringArrayVar(&o.LocalDomains, "local-domains", nil, "`domain` whose users may be listed without it, as in mydestination; repeat for several")
	fs.StringVar(&o.RecipientDelimiter, "recipient-delimiter", "+", "`characters` that may separate user from extension; \"\" for none")
}

// bindServers adds what counts for tables that live in a server.
func (o *ownershipPart) bindServers(fs *pflag.FlagSet) {
	config.Duration(fs, &o.OwnersTimeout, "owners-timeout", remote.DefaultTimeout, 10*time.Millisecond, time.Minute, "longest time for one question to the servers of a table; keep it below deadline")
	config.Int(fs, &o.OwnersConnections, "owners-connections", postmap.DefaultMaxConns, 1, 1000, "most connections to the servers of one table")
	config.Duration(fs, &o.OwnersCacheTTL, "owners-cache-ttl", time.Minute, 0, 24*time.Hour, "how long an entry of a server's table is remembered; 0 asks each time")
	config.Duration(fs, &o.OwnersCacheNegativeTTL, "owners-cache-negative-ttl", 10*time.Second, 0, 24*time.Hour, "how long it is remembered that a server's table has no entry")
	config.Int(fs, &o.OwnersCacheSize, "owners-cache-size", remote.DefaultMaxEntries, 16, 1_000_000, "most remembered answers of one table")
	config.Duration(fs, &o.OwnersLastKnown, "owners-last-known", 15*time.Minute, 0, 24*time.Hour, "how long a remembered answer that is too old may still stand in while the servers are down; 0 never")
}

// validate also brings the domains into their one form.
func (o *ownershipPart) validate(s *config.Set) error {
	var errs []error
	if len(o.Owners)+len(o.OwnerAliases) == 0 {
		errs = append(errs, s.Errorf("owners", "the ownership check has no table: set owners or owner-aliases, or take ownership out of checks"))
	}
	var err error
	if o.LoginDomain != "" {
		if o.LoginDomain, err = mailaddr.ParseDomain(o.LoginDomain); err != nil {
			errs = append(errs, s.Errorf("login-domain", "%w", err))
		}
	}
	o.LocalDomains = slices.Clone(o.LocalDomains)
	for i, domain := range o.LocalDomains {
		if o.LocalDomains[i], err = mailaddr.ParseDomain(domain); err != nil {
			errs = append(errs, s.ErrorfAt("local-domains", i, "%q: %w", domain, err))
		}
	}
	return errors.Join(errs...)
}

func (o *ownershipPart) build(n *needs) (policy.Entry, error) {
	owners, err := o.openTables("owners", o.Owners, n)
	if err != nil {
		return policy.Entry{}, err
	}
	aliases, err := o.openTables("owner-aliases", o.OwnerAliases, n)
	if err != nil {
		return policy.Entry{}, err
	}
	decider, err := ownership.New(ownership.Config{
		Owners:       owners,
		Aliases:      aliases,
		LocalDomains: o.LocalDomains,
		LoginDomain:  o.LoginDomain,
		Delimiters:   o.RecipientDelimiter,
		SelfOwned:    o.OwnerSelf,
		AliasDepth:   o.OwnerAliasDepth,
	})
	if err != nil {
		return policy.Entry{}, err
	}
	n.life.Watch(decider.Files()...)
	o.shadow = n.options.shadowed(checks.OwnershipName)
	o.check = &checks.Ownership{
		Owners:                decider,
		UnlistedPass:          o.OwnersUnlisted == wordPass,
		UnauthenticatedReject: o.OwnersUnauthenticated == wordReject,
		NullSenderReject:      o.NullSender == wordReject,
		Exempt:                exempt(o.OwnerExempt),
	}
	return policy.Entry{Check: o.check, OnError: onError(o.OwnersOnError), ErrorReason: record.OwnerLookupFailed}, nil
}

// openTables opens the tables of one flag; the error names where the failing
// one was asked for.
func (o *ownershipPart) openTables(flag string, specs []string, n *needs) ([]postmap.Table, error) {
	var tables []postmap.Table
	for i, spec := range specs {
		table, err := o.openTable(spec, n)
		if err != nil {
			return nil, n.set.ErrorfAt(flag, i, "%w", err)
		}
		tables = append(tables, table)
	}
	o.tables = append(o.tables, tables...)
	return tables, nil
}

// tableKey is what a table is made of, beside its files.
type tableKey struct {
	spec                               string
	connections, entries               int
	timeout, ttl, negative, staleAfter time.Duration
}

// openTable opens a table, or returns the one in force while its files and
// settings are the same: connections, remembered and last known answers stay.
func (o *ownershipPart) openTable(spec string, n *needs) (postmap.Table, error) {
	key := tableKey{spec, o.OwnersConnections, o.OwnersCacheSize, o.OwnersTimeout, o.OwnersCacheTTL, o.OwnersCacheNegativeTTL, o.OwnersLastKnown}
	return service.Keep(n.life, key, func() (service.Opened[postmap.Table], error) {
		began := time.Now()
		table, err := postmap.Open(spec, o.tableOptions(n.Log))
		if err != nil {
			return service.Opened[postmap.Table]{}, err
		}
		return service.Opened[postmap.Table]{
			Value:     table,
			Close:     func() error { return postmap.Close(table) },
			Unchanged: config.TakeSnapshot(began, table.Files...).Unchanged,
		}, nil
	})
}

func (o *ownershipPart) tableOptions(log *zap.Logger) postmap.Options {
	return postmap.Options{
		Warn:     warner(log),
		MaxConns: o.OwnersConnections,
		Remote: remote.Config{
			Timeout: o.OwnersTimeout, TTL: o.OwnersCacheTTL, NegativeTTL: o.OwnersCacheNegativeTTL,
			StaleFor: o.OwnersLastKnown, MaxEntries: o.OwnersCacheSize,
		},
		State: func(table string, c remote.Change) { logTableState(log, table, c) },
	}
}

// logTableState writes the one record of a server that has gone or come back.
func logTableState(log *zap.Logger, table string, c remote.Change) {
	if c.Up {
		log.Info("the servers of a table answer again", zap.String("table", table), zap.Duration("down", c.Down))
		return
	}
	log.Error("the servers of a table do not answer", zap.String("table", table), zap.Error(c.Err))
}

// warner gives the tables' warnings to the log.
func warner(log *zap.Logger) func(string) {
	return func(text string) { log.Warn(text) }
}

func exempt(logins []string) map[string]bool {
	set := make(map[string]bool, len(logins))
	for _, login := range logins {
		set[mailaddr.Fold(login)] = true
	}
	return set
}
