package postmap

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/internal/postmap/mapfile"
)

// A hash: table may be compiled by postalias(1) from a text of aliases(5), "name:
// value, value", as Postfix's own alias_maps are. The table's name does not show this,
// and the text could also be one of postmap(1) with keys that end with a colon. So a
// text counts as aliases when every line of it looks like an alias.

// isAliasLine reports whether a line is one of aliases(5): a name, a colon, and a
// value. In a text of postmap(1) the key would end with the colon, the value would
// begin with it, or there would be no value.
func isAliasLine(text []byte) bool {
	end, quoted := textKeyEnd(text)
	if quoted || end == 0 {
		return false
	}
	key, value := text[:end], bytes.TrimLeft(text[end:], mapfile.Space)
	if len(bytes.TrimRight(value, mapfile.Space)) == 0 {
		return bytes.IndexByte(key, ':') > 0
	}
	return key[len(key)-1] == ':' || value[0] == ':'
}

// splitAlias separates name and value of an alias, as postalias(1) stores them: the
// name without its quotes, the values separated by a comma and a space.
func splitAlias(text []byte) (key, value []byte, problem *mapfile.Error) {
	if !utf8.Valid(text) {
		return nil, nil, &mapfile.Error{What: "invalid UTF-8", Fix: "save the file as UTF-8"}
	}
	colon := aliasColon(text)
	name := strings.Trim(string(text[:max(colon, 0)]), mapfile.Space)
	var values []string
	for v, rest := nextAliasValue(string(text[colon+1:])); v != "" || rest != ""; v, rest = nextAliasValue(rest) {
		if v != "" {
			values = append(values, plainAlias(v))
		}
	}
	if name == "" || len(values) == 0 {
		return nil, nil, &mapfile.Error{What: fmt.Sprintf("no value after name %.64q", name), Fix: "write: name, colon, value"}
	}
	return []byte(unquoteAlias(name)), []byte(strings.Join(values, ", ")), nil
}

// aliasColon returns the index of the first colon outside of quotes, or -1.
func aliasColon(text []byte) int {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ':' && !quoted:
			return i
		}
	}
	return -1
}

// nextAliasValue returns the first value of a list and the rest. Commas outside of
// quotes separate the values.
func nextAliasValue(list string) (value, rest string) {
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			return strings.Trim(list[:i], mapfile.Space), list[i+1:]
		}
	}
	return strings.Trim(list, mapfile.Space), ""
}

// plainAlias removes the backslashes from a value without quotes, as in \root.
func plainAlias(value string) string {
	if strings.Contains(value, `"`) {
		return value
	}
	return unquoteAlias(value)
}

// unquoteAlias removes the quotes and backslashes from a name.
func unquoteAlias(name string) string {
	if !strings.ContainsAny(name, `"\`) {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '\\' && i+1 < len(name):
			i++
			b.WriteByte(name[i])
		case c != '"':
			b.WriteByte(c)
		}
	}
	return b.String()
}
