package ownership

import (
	"context"

	"github.com/postern-mail/postern/internal/postmap"
)

// firstMatch answers as Postfix does. Each form of the address is looked up in
// all tables, in their order, before the next form, and the first entry
// decides. The alias tables come after the owner tables, and the login's own
// address last. A table that fails ends the search, because its answer is
// unknown.
func (q *question) firstMatch(ctx context.Context, login string) (Answer, error) {
	found := q.first(ctx, q.owners.owners, ByMap)
	if !found && q.err == nil {
		found = q.first(ctx, q.owners.aliases, ByAlias)
	}
	switch {
	case q.err != nil:
		return q.answer, q.err
	case !found && q.owners.ownsSelf(q.sender, login, q.account):
		return Answer{Owned: true, How: BySelf}, nil
	case found && !q.answer.Owned:
		q.follow(ctx)
	}
	return q.answer, q.err
}

// first judges the first entry in one of the tables, and reports whether there
// is one.
func (q *question) first(ctx context.Context, tables []postmap.Table, how How) (found bool) {
	ask := func(form string, full bool) bool {
		for i := range tables {
			table := &tables[i]
			if table.Pattern && !full {
				continue
			}
			key := keyFor(table, how, form)
			values, err := table.Source.Lookup(ctx, key)
			if err != nil {
				q.fail(table, key, err)
				return false
			}
			if len(values) > 0 {
				q.enter(table, key, values, how)
				found = true
				return false
			}
		}
		return true
	}
	if q.sender.IsValid() {
		q.owners.forms(q.sender, ask)
	} else {
		ask(q.sender.Raw, true)
	}
	return found
}
