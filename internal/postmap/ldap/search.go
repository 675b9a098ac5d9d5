package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/internal/postmap/conf"
	"github.com/postern-mail/postern/internal/postmap/remote"
)

// Bounds of one look-up.
const (
	maxSearches = 1000
	maxDepth    = 100 // of references, should recursion_limit be larger
	maxValues   = 10_000
	maxOctets   = 1 << 20
)

// attributes are the result attributes by their kind.
type attributes struct{ terminal, leaf, ordinary, special []string }

// all returns the names to ask for.
func (a attributes) all() []string {
	return slices.Concat(a.terminal, a.leaf, a.ordinary, a.special)
}

// has reports whether a list names an attribute, or the one that this is an option
// of (RFC 4512 section 2.5).
func has(list []string, name string) bool {
	return slices.ContainsFunc(list, func(wanted string) bool {
		n := len(wanted)
		return len(name) >= n && strings.EqualFold(name[:n], wanted) && (len(name) == n || name[n] == ';')
	})
}

// lookup is one question: what has been found and what it has cost.
type lookup struct {
	*Source
	conn     *ldap.Conn
	key      conf.Key
	seen     map[string]bool // references that were followed
	searches int
	values   []string
	octets   int
}

// search answers for one key on one connection.
func (s *Source) search(ctx context.Context, conn *ldap.Conn, key conf.Key) ([]string, error) {
	// The library knows no contexts; closing the connection ends its waits.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	l := lookup{Source: s, conn: conn, key: key, seen: map[string]bool{}}
	err := l.begin(ctx)
	if ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	return l.values, err
}

func (l *lookup) begin(ctx context.Context) error {
	entries, err := l.searchOnce(ctx, l.request(l.key.Expand(l.base, ldap.EscapeDN), l.scope, l.key.Expand(l.filter, ldap.EscapeFilter), l.attributes.all()))
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) && l.base.IsDynamic() {
		return nil // a base that depends on the key may be missing
	}
	if err != nil {
		return err
	}
	return l.collect(ctx, entries, 1)
}

func (l *lookup) request(base string, scope int, filter string, attributes []string) *ldap.SearchRequest {
	return ldap.NewSearchRequest(base, scope, l.dereference, l.limits.size, 0, false, filter, attributes, nil)
}

// searchOnce runs one search.
func (l *lookup) searchOnce(ctx context.Context, r *ldap.SearchRequest) ([]*ldap.Entry, error) {
	if l.searches++; l.searches > maxSearches {
		return nil, &remote.KeyError{What: fmt.Sprintf("more than %d searches", maxSearches)}
	}
	if deadline, ok := ctx.Deadline(); ok {
		l.conn.SetTimeout(max(time.Until(deadline), time.Millisecond))
	}
	result, err := l.conn.Search(r)
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded), err == nil && l.limits.size > 0 && len(result.Entries) > l.limits.size:
		return nil, &remote.KeyError{What: fmt.Sprintf("more entries than size_limit = %d, or than the server gives", l.limits.size)}
	case err != nil:
		return nil, fmt.Errorf("search below %.200q: %w", r.BaseDN, err)
	}
	return result.Entries, nil
}

func (l *lookup) collect(ctx context.Context, entries []*ldap.Entry, depth int) error {
	for _, e := range entries {
		if err := l.entry(ctx, e, depth); err != nil {
			return err
		}
	}
	return nil
}

// entry takes the values of one entry.
func (l *lookup) entry(ctx context.Context, e *ldap.Entry, depth int) error {
	isTerminal, isLeaf := holds(e, l.attributes.terminal), !holds(e, l.attributes.special)
	for _, a := range e.Attributes {
		var err error
		switch {
		case isTerminal:
			if has(l.attributes.terminal, a.Name) {
				err = l.addValues(a.Values)
			}
		case has(l.attributes.leaf, a.Name):
			if isLeaf {
				err = l.addValues(a.Values)
			}
		case has(l.attributes.ordinary, a.Name):
			err = l.addValues(a.Values)
		case has(l.attributes.special, a.Name):
			err = l.follow(ctx, a.Values, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// holds reports whether an entry has a value of any of the attributes.
func holds(e *ldap.Entry, list []string) bool {
	return slices.ContainsFunc(e.Attributes, func(a *ldap.EntryAttribute) bool {
		return len(a.Values) > 0 && has(list, a.Name)
	})
}

func (l *lookup) addValues(values []string) error {
	for _, value := range values {
		formatted, ok := l.expander.Format(l.format, l.key, value)
		if !ok {
			continue
		}
		l.values = append(l.values, formatted)
		if l.limits.expansion > 0 && len(l.values) > l.limits.expansion {
			return &remote.KeyError{What: fmt.Sprintf("more than expansion_limit = %d values", l.limits.expansion)}
		}
		if l.octets += len(formatted); len(l.values) > maxValues || l.octets > maxOctets {
			return &remote.KeyError{What: fmt.Sprintf("more than %d values or %d octets", maxValues, maxOctets)}
		}
	}
	return nil
}

// follow reads the entries that DNs and URLs refer to, each once.
func (l *lookup) follow(ctx context.Context, references []string, depth int) error {
	for _, reference := range references {
		if l.seen[reference] {
			continue
		}
		if depth >= min(l.limits.recursion, maxDepth) {
			return &remote.KeyError{What: fmt.Sprintf("references deeper than recursion_limit = %d", min(l.limits.recursion, maxDepth))}
		}
		l.seen[reference] = true
		request, err := l.reference(reference)
		if err != nil {
			return err
		}
		if request == nil {
			continue
		}
		entries, err := l.searchOnce(ctx, request)
		if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
			continue // as Postfix: a reference to nothing adds nothing
		}
		if err != nil {
			return err
		}
		if err := l.collect(ctx, entries, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// reference makes the search that a DN or URL means; nil if it asks for no
// attribute of ours.
func (l *lookup) reference(text string) (*ldap.SearchRequest, error) {
	if !isURL(text) {
		return l.request(text, ldap.ScopeBaseObject, "(objectClass=*)", l.attributes.all()), nil
	}
	u, err := parseURL(text)
	if err != nil {
		return nil, &remote.KeyError{What: fmt.Sprintf("malformed URL %.200q: %v", text, err)}
	}
	wanted := u.wanted(l.attributes.all())
	if len(wanted) == 0 {
		return nil, nil
	}
	return l.request(u.dn, u.scope, u.filter, wanted), nil
}
