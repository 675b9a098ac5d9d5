// Package unionmap answers: which values does a key have in any of these tables?
//
// unionmap:{type:name, type:name} concatenates the results of its members. As in
// Postfix the first member decides whether the union counts as a pattern table,
// and a member that fails fails the union.
package unionmap

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership"
	"github.com/postern-mail/postern/internal/ownership/mapspec"
)

// MaxMembers is the largest number of tables in one union.
const MaxMembers = 100

// Union is an open union.
type Union []ownership.Table

// Open reads what follows "unionmap:" and opens the members by open.
func Open(text string, open func(spec string) (ownership.Table, error)) (Union, error) {
	specs, err := members(text)
	if err != nil {
		return nil, fmt.Errorf("%w; write unionmap:{type:name, type:name}", err)
	}
	var union Union
	for _, spec := range specs {
		member, err := open(spec)
		if err != nil {
			return nil, errors.Join(err, union.Close())
		}
		union = append(union, member)
	}
	return union, nil
}

// members splits the list.
func members(text string) ([]string, error) {
	inner, err := mapspec.Inner(text)
	if err != nil {
		return nil, err
	}
	specs, err := mapspec.Fields(inner)
	if err == nil && (len(specs) == 0 || len(specs) > MaxMembers) {
		err = fmt.Errorf("%d members, 1 to %d are allowed", len(specs), MaxMembers)
	}
	return specs, err
}

// Pattern tells whether the union is asked like a pattern table.
func (u Union) Pattern() bool { return len(u) > 0 && u[0].Pattern }

// Lookup gives the values of all members in their order.
func (u Union) Lookup(ctx context.Context, key string) ([]string, error) {
	var values []string
	for _, member := range u {
		found, err := member.Source.Lookup(ctx, memberKey(member, key))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", member.Spec, err)
		}
		values = append(values, found...)
	}
	return values, nil
}

// Locate tells the place of the first entry that has the key.
func (u Union) Locate(key string) string {
	for _, member := range u {
		if where := member.Locate(memberKey(member, key)); where != "" {
			return where
		}
	}
	return ""
}

// Keys gives the keys of all members, each once, if all of them can tell.
func (u Union) Keys() (iter.Seq[string], bool) {
	seen := map[string]bool{}
	for _, member := range u {
		e, ok := member.Source.(ownership.Enumerator)
		if !ok || member.Pattern {
			return nil, false
		}
		keys, ok := e.Keys()
		if !ok {
			return nil, false
		}
		for key := range keys {
			seen[key] = true
		}
	}
	return slices.Values(slices.Sorted(maps.Keys(seen))), true
}

// Close closes the members.
func (u Union) Close() error { return ownership.Close(u...) }

func memberKey(member ownership.Table, key string) string {
	if member.Pattern {
		return key
	}
	return mailaddr.FoldKey(key)
}
