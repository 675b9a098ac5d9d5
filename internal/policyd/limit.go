package policyd

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
	"github.com/postern-mail/postern/internal/limit/redisstore"
	"github.com/postern-mail/postern/internal/limit/sqlitestore"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/postmap/remote"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/hosts"
	"github.com/postern-mail/postern/internal/service/lastgood"
	"github.com/postern-mail/postern/internal/service/tables"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// The words of --limit-count-at.
const (
	wordAuto      = "auto"
	wordEndOfData = "end-of-data"
	wordRcpt      = "rcpt"
)

// limitPart is the part for the limit check.
type limitPart struct {
	Limits            []string
	LimitActions      []string
	LimitOverrides    []string
	LimitStore        string
	LimitPasswordFile string
	LimitCountAt      string
	LimitOnError      string
	LimitTrusted      []string
	LimitIPv4Prefix   int
	LimitIPv6Prefix   int
	LimitURL          string
	alarmFlags

	rules   []limit.Rule
	actions map[string]limit.Action // by KEY.UNIT, KEY, or ""
	trusted allowlist.Networks
	domain  string // for logins without a domain; may be ""

	storeGiven bool // limit-store is not the default

	store     *limitStore // nil while there is nothing to keep
	judge     *limit.Judge
	shadow    bool
	openFirst func() (limit.Store, error) // creates the store for the first block
	reload    func(cause string)
}

func (o *limitPart) bind(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.Limits, "limit", nil, "`KEY.UNIT=COUNT/WINDOW` that may be sent, as login.recipients=300/1h; repeat for several")
	fs.StringArrayVar(&o.LimitActions, "limit-action", []string{string(limit.Defer)}, "`action` when a limit is reached: defer, reject, hold or warn; with KEY= or KEY.UNIT= before it for these limits only; repeat for several")
	fs.StringArrayVar(&o.LimitOverrides, "limit-overrides", nil, "`type:table` of logins, or @domains, with limits of their own, as \"recipients=5000/1d messages=off\"; repeat for several")
	fs.StringVar(&o.LimitStore, "limit-store", "sqlite:/var/lib/postern/limits.db", "`where` the counts are kept: sqlite:PATH, memory:, or redis://, rediss://, redis+sentinel://, redis+cluster:// to share it")
	fs.StringVar(&o.LimitPasswordFile, "limit-password-file", "", "`file` with the password of Redis; a bare name is a systemd credential")
	config.Choice(fs, &o.LimitCountAt, "limit-count-at", "when a recipient counts: at the end of its mail, when it is accepted, or at the end while Postfix asks there", wordAuto, wordEndOfData, wordRcpt)
	config.Choice(fs, &o.LimitOnError, "limit-on-error", "what happens while the store does not answer, or the overrides of a login are not known", wordPass, wordDefer)
	fs.StringArrayVar(&o.LimitTrusted, "limit-trusted-networks", nil, "`network` of clients without login, web mail for instance, whose sender counts as the login; repeat for several")
	config.Int(fs, &o.LimitIPv4Prefix, "limit-ipv4-prefix", 24, 8, 32, "bits of an IPv4 address that make a network")
	config.Int(fs, &o.LimitIPv6Prefix, "limit-ipv6-prefix", 64, 16, 128, "bits of an IPv6 address that make a network")
	fs.StringVar(&o.LimitURL, "limit-url", "", "`page` that the reply to a limited mail names")
	o.alarmFlags.bind(fs)
}

// storeSetting returns where counters are kept.
func (o *limitPart) storeSetting() storeSetting {
	return storeSetting{"limit-store", o.LimitStore, o.LimitPasswordFile, "limit-password-file", "sqlite:/var/lib/postern/limits.db"}
}

// stored implements storer.
func (o *limitPart) stored() (storeSetting, bool) { return o.storeSetting(), o.keeps() }

// keeps reports whether the check has a store. It has one for limits. Without limits it
// has one for blocks, if a store is named or the first block has created the default
// store.
func (o *limitPart) keeps() bool {
	if o.limited() || o.storeGiven {
		return true
	}
	path, isFile := strings.CutPrefix(o.LimitStore, sqliteScheme)
	_, err := os.Stat(path)
	return isFile && err == nil
}

// limited reports whether anything is limited.
func (o *limitPart) limited() bool { return len(o.rules)+len(o.LimitOverrides) > 0 }

func (o *limitPart) validate(s *config.Set) error {
	var errs []error
	o.rules = nil
	for i, text := range o.Limits {
		r, err := limit.ParseRule(text, config.ParseDuration)
		if err != nil {
			errs = append(errs, s.ErrorfAt("limit", i, "%w", err))
			continue
		}
		o.rules = append(o.rules, r)
		if err := limit.CheckRules(o.rules); err != nil {
			errs = append(errs, s.ErrorfAt("limit", i, "%w", err))
			o.rules = o.rules[:len(o.rules)-1]
		}
	}
	errs = append(errs, o.setActions(s))
	o.storeGiven = s.Origin("limit-store").Name != ""
	if err := o.storeSetting().check(); err != nil {
		errs = append(errs, s.Errorf("limit-store", "%w", err))
	}
	var err error
	o.trusted, err = s.Networks("limit-trusted-networks", o.LimitTrusted)
	errs = append(errs, err, checkURL(s, "limit-url", o.LimitURL), o.alarmFlags.validate(s))
	if o.domain = s.Lookup("login-domain").Value.String(); o.domain != "" {
		if o.domain, err = mailaddr.ParseDomain(o.domain); err != nil {
			errs = append(errs, s.Errorf("login-domain", "%w", err))
		}
	}
	return errors.Join(errs...)
}

// setActions sets the action of each rule: the action of its key and unit, of its key,
// or the general one.
func (o *limitPart) setActions(s *config.Set) error {
	var errs []error
	o.actions = map[string]limit.Action{"": limit.Defer}
	for i, text := range o.LimitActions {
		name, action, ok := strings.Cut(text, "=")
		if !ok {
			name, action = "", text
		} else if _, _, err := limit.ParseName(name); err != nil {
			errs = append(errs, s.ErrorfAt("limit-action", i, "%w", err))
			continue
		}
		if !limit.Action(action).Valid() {
			errs = append(errs, s.ErrorfAt("limit-action", i, "%.40q is none of defer, reject, hold, warn", action))
			continue
		}
		o.actions[name] = limit.Action(action)
	}
	for i := range o.rules {
		o.rules[i].Action = o.action(o.rules[i].Key, o.rules[i].Unit)
	}
	return errors.Join(errs...)
}

func (o *limitPart) action(k limit.Key, u limit.Unit) limit.Action {
	for _, name := range []string{limit.Rule{Key: k, Unit: u}.Name(), string(k)} {
		if a, ok := o.actions[name]; ok {
			return a
		}
	}
	return o.actions[""]
}

// limitsLogins reports whether anything is limited for those who have logged in.
func (o *limitPart) limitsLogins() bool {
	return len(o.LimitOverrides) > 0 || slices.ContainsFunc(o.rules, func(r limit.Rule) bool { return r.Key == limit.Login || r.Key == limit.LoginDomain })
}

func (o *limitPart) build(n *needs) (policy.Entry, error) {
	check := new(checks.Limit)
	entry := policy.Entry{Check: check, OnError: onError(o.LimitOnError), ErrorReason: record.LimitUnavailable}
	o.shadow = n.options.shadowed(checks.LimitName)
	if !o.keeps() {
		o.reload = n.Reload
		o.openFirst = func() (limit.Store, error) {
			store, _, err := o.openStore(config.Secret{}, n, new(atomic.Uint64))
			return store, err
		}
		return entry, nil
	}
	c, err := o.judgeConfig(n)
	if err != nil {
		return entry, err
	}
	if o.store, err = o.open(n); err != nil {
		return entry, err
	}
	n.life.Background(func(ctx context.Context) { o.store.watch(ctx, n) })
	hosts.Announce(n.life, n.Runtime, hosts.Self{Setting: "limit-store", Store: o.store.store, Settings: o.common(n.set)})
	c.Store, c.Blocks, c.Ends, c.Trail = o.store.guard, o.store.blocks, &o.store.ends, &o.store.trail
	c.CountAt, c.Watch, c.PassUnknown = countAt(o.LimitCountAt), o.shadow, o.LimitOnError == wordPass
	c.NoEnds = func(port string) {
		n.Log.Error("no mail is asked about at its end, where limits count; add limit to smtpd_end_of_data_restrictions of the service, or set limit-count-at to rcpt and remove limits of bytes", zap.String("server_port", port))
	}
	o.judge = limit.NewJudge(c)
	alarms, err := o.alarmFlags.open(n)
	if err != nil {
		return entry, err
	}
	check.Judge, check.URL, check.Exempt = o.judge, o.LimitURL, o.alarmFlags.exempt()
	if o.limitsLogins() {
		check.Attached, check.Unattached = &o.store.attached, func() {
			n.Log.Error("users send mail and Postfix does not ask for their limits, so nothing is counted; run postern setup --apply, or name limit in the policy_context of the hook for users")
		}
	}
	n.life.OnBegin(func() { o.store.prepare(o.rules) })
	check.Alarm, check.Lost = o.store.alarm(n.Log, alarms), o.store.lost
	return entry, nil
}

// common returns the settings that hosts which share the store must have in common: those
// that make the counters, and those by which each of them judges what all have counted. Others
// are not compared. limit-count-at is about the Postfix of a host, limit-trusted-networks about
// the clients near it, limit-on-error and shadow decide what it does by itself.
func (o *limitPart) common(set *config.Set) map[string]string {
	all := hosts.Texts(set, "limit-overrides", "limit-ipv4-prefix", "limit-ipv6-prefix", "login-domain")
	var rules []string
	for _, r := range o.rules {
		rules = append(rules, r.String())
	}
	slices.Sort(rules) // their order does not matter
	all["limit"] = strings.Join(rules, " ")
	all["limit-action"] = strings.Join(slices.Sorted(slices.Values(o.LimitActions)), " ")
	return all
}

func (o *limitPart) keyer() limit.Keyer {
	return limit.Keyer{LoginDomain: o.domain, Bits4: o.LimitIPv4Prefix, Bits6: o.LimitIPv6Prefix, Trusted: o.trusted.Has}
}

// judgeConfig returns the configuration of a judge, without its store and without when
// it counts.
func (o *limitPart) judgeConfig(n *needs) (limit.Config, error) {
	overrides, err := o.openOverrides(n)
	return limit.Config{
		Rules:     o.rules,
		Keyer:     o.keyer(),
		Overrides: overrides,
		Action:    func(u limit.Unit) limit.Action { return o.action(limit.Login, u) },
	}, err
}

func countAt(word string) limit.CountAt {
	switch word {
	case wordEndOfData:
		return limit.AtEnd
	case wordRcpt:
		return limit.AtName
	}
	return limit.AtEndIfAsked
}

// overrideTable asks a table in the form that limits need.
type overrideTable struct{ postmap.Table }

// Lookup implements limit.Table. A table of patterns is only asked for whole logins.
func (t overrideTable) Lookup(ctx context.Context, key string) ([]string, error) {
	if t.Pattern && strings.HasPrefix(key, "@") {
		return nil, nil
	}
	return t.Source.Lookup(ctx, key)
}

// Name implements limit.Table.
func (t overrideTable) Name() string { return t.Spec }

// overrideKey is the settings from which a table of overrides is made, beside its files.
type overrideKey struct{ spec string }

// Bounds of the cache for a table in a server. The last known answer is used longer than
// that of an owner table, because an old one grants no right to anyone.
const (
	overrideTTL       = time.Minute
	overrideNegTTL    = 10 * time.Second
	overrideLastKnown = 24 * time.Hour
)

func (o *limitPart) openOverrides(n *needs) (limit.Overrides, error) {
	if len(o.LimitOverrides) == 0 {
		return nil, nil
	}
	overrides := &limit.Tables{LoginDomain: o.domain, Duration: config.ParseDuration, Warn: func(key, text string, err error) {
		n.Log.Warn("a limit override cannot be used, the general limits are kept; correct its entry", zap.String("key", key), zap.String("entry", text), zap.Error(err))
	}}
	var opened []postmap.Table
	for i, spec := range o.LimitOverrides {
		table, err := lastgood.Keep(n.life, n.Runtime, overrideKey{spec}, lastgood.Reader[postmap.Table]{
			Name: spec,
			Open: func() (postmap.Table, error) {
				return postmap.Open(spec, postmap.Options{
					Warn:   func(text string) { n.Log.Warn(text) },
					Remote: remote.Config{TTL: overrideTTL, NegativeTTL: overrideNegTTL, StaleFor: overrideLastKnown},
					State:  tables.State(n.Log),
				})
			},
			Files: func(t postmap.Table) []string { return t.Files },
			Len:   postmap.Table.Len,
			Close: func(t postmap.Table) error { return postmap.Close(t) },
		})
		if err != nil {
			return nil, n.set.ErrorfAt("limit-overrides", i, "%w", err)
		}
		n.life.Watch(table.Files...)
		opened = append(opened, table)
		overrides.Tables = append(overrides.Tables, overrideTable{table})
	}
	n.tables = append(n.tables, opened...)
	if !n.set.Online() {
		return overrides, nil
	}
	return overrides, tables.Probe(context.Background(), n.set, "limit-overrides", opened) // each server has its own time-out
}

// limitStoreKey is the settings from which a store is made.
type limitStoreKey struct {
	store    string
	password [sha256.Size]byte
}

// open opens the store. It returns the store in force if the settings are the same.
func (o *limitPart) open(n *needs) (*limitStore, error) {
	password, err := o.storeSetting().password(n)
	if err != nil {
		return nil, err
	}
	store, err := service.Keep(n.life, limitStoreKey{o.LimitStore, digestOf(password)}, func() (service.Opened[*limitStore], error) {
		unreadable := new(atomic.Uint64)
		store, kind, err := o.openStore(password, n, unreadable)
		if err != nil {
			return service.Opened[*limitStore]{}, err
		}
		s := newLimitStore(store, kind, n)
		s.unreadable = unreadable
		if strings.HasPrefix(o.LimitStore, sqliteScheme) { // so that a block holds for the first mail; startup does not wait for a server
			if err := s.blocks.Refresh(context.Background()); err != nil {
				return service.Opened[*limitStore]{}, errors.Join(err, s.close())
			}
		}
		return service.Opened[*limitStore]{Value: s, Close: s.close, Work: s.blocks.Watch}, nil
	})
	if err != nil {
		return nil, n.set.Errorf("limit-store", "%w", err)
	}
	return store, nil
}

// openStore opens the store. unreadable counts rows of its file that cannot be read.
func (o *limitPart) openStore(password config.Secret, n *needs, unreadable *atomic.Uint64) (limit.Store, string, error) {
	counters := memstore.Options{Logins: daemon.Share(limit.DefaultLogins), Strangers: daemon.Share(limit.DefaultStrangers)}
	return openStore(o.storeSetting(), password, n, openers[limit.Store]{
		memory: func() limit.Store { return memstore.New(counters) },
		sqlite: func(path string) (limit.Store, error) {
			return sqlitestore.Open(sqlitestore.Options{
				Memory: counters,
				Path:   path, Report: reportFile(n.Runtime, "limit"), Salvaged: reportSalvaged(n.Log, path),
				Damaged: func(rows int, first error) {
					unreadable.Add(uint64(rows))
					n.Log.Error("rows of the limit file cannot be read, what they have counted is lost; they are kept in its table unreadable, for a report", zap.String("path", path), zap.Int("rows", rows), zap.Error(first))
				},
			})
		},
		redis: func(url, password string) (limit.Store, error) {
			return redisstore.Open(redisstore.Options{
				URL: url, Password: password, ClockStep: reportClock(n.Runtime, checks.LimitName),
				Lost: reportLoss(n.Runtime, checks.LimitName, "counts begin at 0 and no login is blocked any more", "block those logins again, and "),
			})
		},
	})
}
