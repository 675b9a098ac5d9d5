package ownership

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postmap"
)

// MaxOwners is how many owners an [Answer] contains at most.
const MaxOwners = 20

// Config selects the tables and how they are read. With the zero value no
// sender is listed.
type Config struct {
	Owners  []postmap.Table // as smtpd_sender_login_maps
	Aliases []postmap.Table // as virtual_alias_maps

	LocalDomains []string // domains whose addresses are also looked up without the domain
	LoginDomain  string   // the domain of logins, alias targets and senders without one; "" leaves them without
	Delimiters   string   // as recipient_delimiter; "" means no extensions
	SelfOwned    bool     // a login owns its own address without being listed
	FirstMatch   bool     // the first table that lists the sender decides; a login owns its own address only if none does

	// AliasDepth is how many aliases may lead from a sender to its login, one
	// after the other, at most [MaxAliasDepth]. With 0 and 1 only direct
	// recipients count.
	AliasDepth int
}

// Owners reports who owns a sender. It is safe for concurrent use if the
// sources are.
type Owners struct {
	owners, aliases []postmap.Table
	localDomains    map[string]bool
	loginDomain     string
	delimiters      string
	selfOwned       bool
	firstMatch      bool
	aliasDepth      int
}

// New returns the Owners of a configuration, or an error about it.
func New(c Config) (*Owners, error) {
	o := &Owners{
		owners: c.Owners, aliases: c.Aliases,
		localDomains: make(map[string]bool, len(c.LocalDomains)),
		delimiters:   c.Delimiters, selfOwned: c.SelfOwned, firstMatch: c.FirstMatch, aliasDepth: c.AliasDepth,
	}
	if c.AliasDepth < 0 || c.AliasDepth > MaxAliasDepth {
		return nil, fmt.Errorf("alias depth %d: 1 to %d are allowed", c.AliasDepth, MaxAliasDepth)
	}
	for _, name := range c.LocalDomains {
		domain, err := mailaddr.ParseDomain(name)
		if err != nil {
			return nil, fmt.Errorf("local domain %.80q: %w", name, err)
		}
		o.localDomains[domain] = true
	}
	if c.LoginDomain != "" {
		domain, err := mailaddr.ParseDomain(c.LoginDomain)
		if err != nil {
			return nil, fmt.Errorf("login domain %.80q: %w", c.LoginDomain, err)
		}
		o.loginDomain = domain
	}
	for _, d := range []byte(c.Delimiters) {
		if d <= ' ' || d >= 0x7f || strings.IndexByte(`@"\,`, d) >= 0 {
			return nil, fmt.Errorf("recipient delimiter %q cannot delimit; use characters such as +", c.Delimiters)
		}
	}
	return o, nil
}

// How is the way in which a login owns a sender.
type How string

// The ways to own a sender.
const (
	ByMap   How = "map"   // an owner table lists the login
	ByAlias How = "alias" // an alias table delivers to the login
	BySelf  How = "self"  // the sender is the login's own address
)

// Path is the entry that decided an answer.
type Path struct {
	Table string // as configured
	Key   string // the key that was found
	Entry string // the values of the key, separated by commas

	// Via are the aliases on the way to Key, the sender's own first. It is
	// empty if Key is the sender's own.
	Via []string

	table *postmap.Table // nil if there is no entry
}

// Where returns the place of the entry, as "path:line", or "" if the source has
// none.
func (p *Path) Where() string {
	if p.table == nil {
		return ""
	}
	return p.table.Locate(p.Key)
}

// Behind returns the addresses from the sender to the entry: the aliases after
// the sender's own, and Key last. It is empty if Key is the sender's own.
func (p *Path) Behind() []string {
	if len(p.Via) == 0 {
		return nil
	}
	return append(slices.Clone(p.Via[1:]), p.Key)
}

// Answer is the answer about one sender and one login.
type Answer struct {
	Owned  bool
	Listed bool // a table has an entry for the sender; not set when owned by self
	How    How  // "" unless owned
	Path   Path // the granting entry; if not owned, the first that lists the sender

	// Owners are the logins and alias targets found instead, if the login does
	// not own the sender. They are spelled as in the tables, each once, at most
	// [MaxOwners].
	Owners []string
}

// Check reports whether the login owns the sender. An empty login owns nothing,
// and the answer says only whether the sender is listed. The error means that a
// source failed and no other grants the sender; the answer then holds the
// results of the others. The null sender has no owner: callers decide about it
// before.
func (o *Owners) Check(ctx context.Context, sender mailaddr.Address, login string) (Answer, error) {
	q := question{owners: o, sender: sender}
	if login != "" {
		q.account = o.account(login)
	}
	if o.firstMatch {
		return q.firstMatch(ctx, login)
	}
	if o.ownsSelf(sender, login, q.account) {
		return Answer{Owned: true, How: BySelf}, nil
	}
	if q.search(ctx, o.owners, ByMap) || q.search(ctx, o.aliases, ByAlias) || q.follow(ctx) {
		return q.answer, nil
	}
	return q.answer, q.err
}

// Files returns the files that the tables were read from, sorted, each once.
func (o *Owners) Files() []string {
	return postmap.Files(slices.Concat(o.owners, o.aliases)...)
}

// Close closes all tables. No Check may be running.
func (o *Owners) Close() error {
	return postmap.Close(slices.Concat(o.owners, o.aliases)...)
}

// question is one call of Check.
type question struct {
	owners  *Owners
	sender  mailaddr.Address
	account string // "" without login
	answer  Answer
	err     error    // of the first source that failed
	aliases []target // the sender's, to be followed
}

// search looks the sender up in tables of one kind until one of them grants it.
func (q *question) search(ctx context.Context, tables []postmap.Table, how How) bool {
	for i := range tables {
		table := &tables[i]
		key, values, err := q.owners.find(ctx, table, how, q.sender)
		if err != nil {
			q.fail(table, key, err)
			continue
		}
		if len(values) > 0 && q.enter(table, key, values, how) {
			return true
		}
	}
	return false
}

// fail keeps the error of the first source that fails.
func (q *question) fail(table *postmap.Table, key string, err error) {
	if q.err == nil {
		q.err = fmt.Errorf("table %s: look up %.100q: %w", table.Spec, key, err)
	}
}

// find returns the first key of an address that a table of one kind has, with its values.
func (o *Owners) find(ctx context.Context, table *postmap.Table, how How, address mailaddr.Address) (key string, values []string, err error) {
	for key := range o.keys(address, table, how) {
		if values, err = table.Source.Lookup(ctx, key); err != nil || len(values) > 0 {
			return key, values, err
		}
	}
	return "", nil, nil
}

// enter enters a table entry in the answer and reports whether it grants the
// sender.
func (q *question) enter(table *postmap.Table, key string, values []string, how How) bool {
	path := Path{Table: table.Spec, Key: key, Entry: strings.Join(values, ","), table: table}
	if q.grants(values, how) {
		q.answer = Answer{Owned: true, Listed: true, How: how, Path: path}
		return true
	}
	if !q.answer.Listed {
		q.answer.Listed, q.answer.Path = true, path
	}
	q.answer.addOwners(values)
	if how == ByAlias && q.account != "" && q.owners.aliasDepth > 1 {
		q.aliases = q.owners.appendTargets(q.aliases, values, target{address: q.sender, key: key})
	}
	return false
}

func (q *question) grants(values []string, how How) bool {
	if q.account == "" {
		return false
	}
	for _, value := range values {
		if how == ByAlias && q.owners.listsTarget(value, q.account, q.sender) ||
			how != ByAlias && q.owners.listsOwner(value, q.account) {
			return true
		}
	}
	return false
}

// addOwners adds the logins and targets in the values.
func (a *Answer) addOwners(values []string) {
	for _, value := range values {
		for name, rest := nextTarget(value); name != "" && len(a.Owners) < MaxOwners; name, rest = nextTarget(rest) {
			if !slices.ContainsFunc(a.Owners, func(known string) bool { return strings.EqualFold(known, name) }) {
				a.Owners = append(a.Owners, name)
			}
		}
	}
}
