// Package inlinemap answers: which value does this key have in a table that is
// its own name?
//
// inline:{key=value, {key = several words}} lists its entries; static:value gives
// one value for every key, also in braces: static:{two words}. Of two inline
// entries with one key the last counts, as in Postfix.
//
// Invariants: an open table never changes; its size is bounded by the name's.
package inlinemap

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership/mapfile"
	"github.com/postern-mail/postern/internal/ownership/mapspec"
)

// Table is an inline: table.
type Table map[string]string

// Open reads what follows "inline:".
func Open(text string) (Table, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("invalid UTF-8")
	}
	inner, err := mapspec.Inner(text)
	if err != nil {
		return nil, err
	}
	fields, err := mapspec.Fields(inner)
	if err != nil {
		return nil, err
	}
	table := make(Table, len(fields))
	for _, field := range fields {
		key, value, err := entry(field)
		if err != nil {
			return nil, err
		}
		table[mailaddr.FoldKey(key)] = value
	}
	if len(table) == 0 {
		return nil, errors.New("empty table")
	}
	return table, nil
}

// Lookup gives the value of a folded key (see [mailaddr.FoldKey]), or none.
func (t Table) Lookup(_ context.Context, key string) ([]string, error) {
	if value, ok := t[key]; ok {
		return []string{value}, nil
	}
	return nil, nil
}

// Keys gives all keys, sorted.
func (t Table) Keys() (iter.Seq[string], bool) {
	return slices.Values(slices.Sorted(maps.Keys(t))), true
}

// Close has nothing to do: the table is memory.
func (t Table) Close() error { return nil }

// entry splits "key=value" or "{ key = value }".
func entry(field string) (key, value string, err error) {
	text := field
	if strings.HasPrefix(field, "{") {
		if text, err = mapspec.Inner(field); err != nil {
			return "", "", fmt.Errorf("entry %.64q: %w", field, err)
		}
	}
	end := keyEnd(text)
	key, rest := text[:end], strings.TrimLeft(text[end:], mapfile.Space)
	if key == "" {
		return "", "", fmt.Errorf("entry %.64q has no key", field)
	}
	if !strings.HasPrefix(rest, "=") {
		return "", "", fmt.Errorf("entry %.64q has no \"=\" after the key", field)
	}
	if value = strings.Trim(rest[1:], mapfile.Space); value == "" {
		return "", "", fmt.Errorf("entry %.64q has no value", field)
	}
	return key, value, nil
}

// keyEnd gives the index of the first white space or "=" outside of quotes.
func keyEnd(text string) int {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '=' || mapfile.IsSpace(c)):
			return i
		}
	}
	return len(text)
}

// Static is a static: table.
type Static string

// OpenStatic reads what follows "static:".
func OpenStatic(text string) (Static, error) {
	if !utf8.ValidString(text) {
		return "", errors.New("invalid UTF-8")
	}
	if strings.HasPrefix(text, "{") {
		inner, err := mapspec.Inner(text)
		if err != nil {
			return "", err
		}
		text = inner
	}
	if text == "" {
		return "", errors.New("empty value")
	}
	if len(text) > mapspec.MaxLength {
		return "", fmt.Errorf("longer than %d octets", mapspec.MaxLength)
	}
	return Static(text), nil
}

// Lookup gives the one value.
func (s Static) Lookup(context.Context, string) ([]string, error) {
	return []string{string(s)}, nil
}

// Close has nothing to do.
func (s Static) Close() error { return nil }
