// unionmap: several tables in one.
//
// unionmap:{type:name, type:name} concatenates the results of its members. As in
// Postfix, the union counts as a pattern table if the first member does, and if a
// member fails, the union fails.

package postmap

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// MaxMembers is the largest number of tables in one union.
const MaxMembers = 100

// unionTable is an open union.
type unionTable []Table

// parseUnion parses what follows "unionmap:" and opens the members with open.
func parseUnion(text string, open func(spec string) (Table, error)) (unionTable, error) {
	specs, err := unionMembers(text)
	if err != nil {
		return nil, fmt.Errorf("%w; write unionmap:{type:name, type:name}", err)
	}
	var union unionTable
	for _, spec := range specs {
		member, err := open(spec)
		if err != nil {
			return nil, errors.Join(err, union.Close())
		}
		union = append(union, member)
	}
	return union, nil
}

// unionMembers splits the list.
func unionMembers(text string) ([]string, error) {
	inner, err := specInner(text)
	if err != nil {
		return nil, err
	}
	specs, err := specFields(inner)
	if err == nil && (len(specs) == 0 || len(specs) > MaxMembers) {
		err = fmt.Errorf("%d members, 1 to %d are allowed", len(specs), MaxMembers)
	}
	return specs, err
}

// Pattern reports whether the union is asked like a pattern table.
func (u unionTable) Pattern() bool { return len(u) > 0 && u[0].Pattern }

// Lookup returns the values of all members, in the order of the members.
func (u unionTable) Lookup(ctx context.Context, key string) ([]string, error) {
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

// Locate returns the place of the first entry that has the key.
func (u unionTable) Locate(key string) string {
	for _, member := range u {
		if where := member.Locate(memberKey(member, key)); where != "" {
			return where
		}
	}
	return ""
}

// Keys returns the keys of all members, each once, if all of them can list their keys.
func (u unionTable) Keys() (iter.Seq[string], bool) {
	seen := map[string]bool{}
	for _, member := range u {
		e, ok := member.Source.(Enumerator)
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

// Probe asks all members.
func (u unionTable) Probe(ctx context.Context) error {
	var errs []error
	for _, member := range u {
		if err := member.Probe(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", member.Spec, err))
		}
	}
	return errors.Join(errs...)
}

// Len returns the number of entries of all members, -1 if one does not know.
func (u unionTable) Len() int {
	total := 0
	for _, member := range u {
		n := member.Len()
		if n < 0 {
			return -1
		}
		total += n
	}
	return total
}

// Close closes the members.
func (u unionTable) Close() error { return Close(u...) }

func memberKey(member Table, key string) string {
	if member.Pattern {
		return key
	}
	return mailaddr.FoldKey(key)
}
