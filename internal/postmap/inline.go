// inline: and static: tables, whose name is their content.
//
// inline:{key=value, {key = several words}} lists its entries. static:value returns
// one value for every key; braces are possible: static:{two words}. Of two inline
// entries with one key the last counts, as in Postfix.
//
// Invariants: an open table never changes; its size is bounded by the name's.

package postmap

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
	"github.com/postern-mail/postern/internal/postmap/mapfile"
)

// inlineTable is an inline: table.
type inlineTable map[string]string

// parseInline reads what follows "inline:".
func parseInline(text string) (inlineTable, error) {
	if !utf8.ValidString(text) {
		return nil, errors.New("invalid UTF-8")
	}
	inner, err := specInner(text)
	if err != nil {
		return nil, err
	}
	fields, err := specFields(inner)
	if err != nil {
		return nil, err
	}
	table := make(inlineTable, len(fields))
	for _, field := range fields {
		key, value, err := inlineEntry(field)
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

// Lookup returns the value of a folded key (see [mailaddr.FoldKey]), or none.
func (t inlineTable) Lookup(_ context.Context, key string) ([]string, error) {
	if value, ok := t[key]; ok {
		return []string{value}, nil
	}
	return nil, nil
}

// Len returns the number of entries.
func (t inlineTable) Len() int { return len(t) }

// Keys returns all keys, sorted.
func (t inlineTable) Keys() (iter.Seq[string], bool) {
	return slices.Values(slices.Sorted(maps.Keys(t))), true
}

// Close has nothing to do: the table is memory.
func (t inlineTable) Close() error { return nil }

// inlineEntry splits "key=value" or "{ key = value }".
func inlineEntry(field string) (key, value string, err error) {
	text := field
	if strings.HasPrefix(field, "{") {
		if text, err = specInner(field); err != nil {
			return "", "", fmt.Errorf("entry %.64q: %w", field, err)
		}
	}
	end := inlineKeyEnd(text)
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

// inlineKeyEnd returns the index of the first white space or "=" outside of quotes.
func inlineKeyEnd(text string) int {
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

// staticTable is a static: table.
type staticTable string

// parseStatic reads what follows "static:".
func parseStatic(text string) (staticTable, error) {
	if !utf8.ValidString(text) {
		return "", errors.New("invalid UTF-8")
	}
	if strings.HasPrefix(text, "{") {
		inner, err := specInner(text)
		if err != nil {
			return "", err
		}
		text = inner
	}
	if text == "" {
		return "", errors.New("empty value")
	}
	if len(text) > MaxSpec {
		return "", fmt.Errorf("longer than %d octets", MaxSpec)
	}
	return staticTable(text), nil
}

// Lookup returns the one value.
func (s staticTable) Lookup(context.Context, string) ([]string, error) {
	return []string{string(s)}, nil
}

// Close has nothing to do.
func (s staticTable) Close() error { return nil }
