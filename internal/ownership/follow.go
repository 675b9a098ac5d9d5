package ownership

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Bounds for aliases that lead to other aliases.
const (
	MaxAliasDepth = 20
	maxFollowed   = 500 // addresses in one question
)

var errTooMany = fmt.Errorf("more than %d addresses in the sender's aliases", maxFollowed)

// target is an address that an alias is delivered to.
type target struct {
	address mailaddr.Address
	key     string   // the alias that contains it
	via     []string // the aliases before that one, the sender's first
}

// appendTargets adds the targets in an entry, which was found for an address.
func (o *Owners) appendTargets(targets []target, values []string, of target) []target {
	via := append(slices.Clone(of.via), of.key)
	for _, value := range values {
		for address := range o.targets(value, of.address) {
			if len(targets) > maxFollowed {
				return targets // follow reports this as an error
			}
			targets = append(targets, target{address: address, via: via})
		}
	}
	return targets
}

// follow searches the aliases of the sender for the login, nearest first. Each
// address is followed once, so aliases may form a loop.
func (q *question) follow(ctx context.Context) bool {
	if len(q.aliases) == 0 {
		return false
	}
	seen := map[string]bool{mailaddr.FoldKey(q.sender.Key()): true}
	level, count := q.aliases, 0
	for depth := 2; depth <= q.owners.aliasDepth && len(level) > 0; depth++ {
		var next []target
		for _, t := range level {
			name := mailaddr.FoldKey(t.address.Key())
			if seen[name] || !t.address.IsValid() {
				continue
			}
			seen[name] = true
			if count++; count > maxFollowed || len(level) > maxFollowed {
				q.err = cmp.Or(q.err, errTooMany)
				return false
			}
			granted, found := q.lookBehind(ctx, t)
			if granted {
				return true
			}
			next = append(next, found...)
		}
		level = next
	}
	return false
}

// lookBehind looks one target up in the alias tables.
func (q *question) lookBehind(ctx context.Context, t target) (granted bool, next []target) {
	for i := range q.owners.aliases {
		table := &q.owners.aliases[i]
		key, values, err := q.owners.find(ctx, table, ByAlias, t.address)
		if err != nil {
			q.fail(table, key, err)
			continue
		}
		names := func(list string) bool { return q.owners.listsTarget(list, q.account, t.address) }
		if slices.ContainsFunc(values, names) {
			path := Path{Table: table.Spec, Key: key, Entry: strings.Join(values, ","), Via: t.via, table: table}
			q.answer = Answer{Owned: true, Listed: true, How: ByAlias, Path: path}
			return true, nil
		}
		next = q.owners.appendTargets(next, values, target{address: t.address, key: key, via: t.via})
	}
	return false, next
}
