package ownership

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postmap"
)

// MaxListed is how many entries a [Listing] holds.
const MaxListed = 10_000

// Listed is an entry that lets a login use senders.
type Listed struct {
	How  How
	Path Path // its Key is a sender, "@domain" for a whole domain, or "user" for the local domains
}

// Listing is what a login owns, as far as tables can be listed.
type Listing struct {
	Entries   []Listed
	Unread    []postmap.Table // tables that cannot be listed: patterns and servers
	Truncated bool            // there were more than MaxListed entries
}

// List searches every table that can list its keys. Aliases of aliases are
// followed as in [Owners.Check]. Servers are not searched: a table file of
// Postfix has a query for the owners of a sender, not for the senders of an
// owner.
func (o *Owners) List(ctx context.Context, login string) (Listing, error) {
	var l Listing
	if login == "" {
		return l, nil
	}
	if o.selfOwned && (strings.Contains(login, "@") || o.loginDomain != "") {
		own := mailaddr.Parse(login).WithDomain(o.loginDomain).Key()
		l.Entries = append(l.Entries, Listed{How: BySelf, Path: Path{Key: own, Entry: login}})
	}
	known := *o // the same rules, with only the tables that can be listed
	known.owners, known.aliases = l.readable(o.owners), l.readable(o.aliases)
	for _, tables := range []struct {
		list []postmap.Table
		how  How
	}{{known.owners, ByMap}, {known.aliases, ByAlias}} {
		for i := range tables.list {
			table := &tables.list[i]
			if err := known.listTable(ctx, &l, table, tables.how, login); err != nil {
				return l, fmt.Errorf("table %s: %w", table.Spec, err)
			}
		}
	}
	return l, nil
}

// readable returns the tables that can list their keys, and notes the others.
func (l *Listing) readable(tables []postmap.Table) []postmap.Table {
	var readable []postmap.Table
	for _, table := range tables {
		if _, ok := keysOf(table); ok && !table.Pattern {
			readable = append(readable, table)
		} else {
			l.Unread = append(l.Unread, table)
		}
	}
	return readable
}

func keysOf(table postmap.Table) (iter.Seq[string], bool) {
	if e, ok := table.Source.(postmap.Enumerator); ok {
		return e.Keys()
	}
	return nil, false
}

func (o *Owners) listTable(ctx context.Context, l *Listing, table *postmap.Table, how How, login string) error {
	keys, _ := keysOf(*table)
	for key := range keys {
		if len(l.Entries) >= MaxListed {
			l.Truncated = true
			return nil
		}
		values, err := table.Source.Lookup(ctx, key)
		if err != nil {
			return err
		}
		q := question{owners: o, sender: mailaddr.ParseInternal(key), account: o.account(login)}
		if q.enter(table, key, values, how) || how == ByAlias && q.follow(ctx) {
			l.Entries = append(l.Entries, Listed{How: how, Path: q.answer.reachedFrom(key, table)})
		} else if q.err != nil {
			return q.err
		}
	}
	return nil
}

// reachedFrom returns the path to the granting entry, seen from the key where
// the search began.
func (a Answer) reachedFrom(key string, table *postmap.Table) Path {
	if len(a.Path.Via) == 0 {
		return a.Path
	}
	return Path{Table: table.Spec, Key: key, Entry: a.Path.Entry, Via: a.Path.Behind(), table: table}
}
