// Opening a table by its name.
//
// A table is named as in Postfix, "type:name". What the name means depends on the
// type. "proxy:" before it is only needed in Postfix's chroot jail, and is dropped.

package postmap

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postmap/remote"
)

// maxDepth bounds unions within unions.
const maxDepth = 8

// Options are the settings for opening a table.
type Options struct {
	Warn func(string) // is called with each warning; nil drops them

	// For tables that live in a server:
	MaxConns int                                 // connections to the servers of one table; 0 means DefaultMaxConns
	Remote   remote.Config                       // time-outs and caching; its State is not used
	State    func(table string, c remote.Change) // is called when the servers of a table go down or come back; may be nil

	depth int
}

// DefaultMaxConns is the default bound of the connections of one table.
const DefaultMaxConns = 8

// opener opens a table. name is its name without the type.
type opener func(mapType, name string, o Options) (Table, error)

// openers returns the map types by their name in Postfix.
func openers() map[string]opener {
	return map[string]opener{
		"btree":     openText,
		"cdb":       openText,
		"dbm":       openText,
		"hash":      openText,
		"inline":    openInline,
		"ldap":      openRemote,
		"lmdb":      openText,
		"mysql":     openRemote,
		"pcre":      openPattern,
		"pgsql":     openRemote,
		"regexp":    openPattern,
		"socketmap": openSocketmap,
		"sqlite":    openRemote,
		"static":    openStatic,
		"texthash":  openText,
		"unionmap":  openUnion,
	}
}

// Known returns the map types that can be opened, sorted.
func Known() []string { return slices.Sorted(maps.Keys(openers())) }

// SplitSpec splits the name of a table, type:name, and drops "proxy:".
func SplitSpec(spec string) (mapType, name string, ok bool) {
	return strings.Cut(strings.TrimPrefix(spec, "proxy:"), ":")
}

// Open opens the table that spec names. The error names the table, what is wrong with
// it, with path:line if there is one, and the fix.
func Open(spec string, o Options) (Table, error) {
	mapType, name, ok := SplitSpec(spec)
	if !ok || name == "" {
		return Table{}, fmt.Errorf("table %.80q has no type and name; write it as in Postfix, for example hash:/etc/postfix/owners", spec)
	}
	open, ok := openers()[mapType]
	if !ok {
		return Table{}, fmt.Errorf("table %.80q: map type %q is not built in; known types: %s", spec, mapType, strings.Join(Known(), " "))
	}
	table, err := open(mapType, name, o)
	if err != nil {
		return Table{}, fmt.Errorf("table %.80s: %w", spec, err)
	}
	table.Spec = spec
	return table, nil
}

func openText(mapType, path string, o Options) (Table, error) {
	source, err := openTextFile(path, textOptions{Type: mapType, Warn: o.Warn})
	if err != nil {
		return Table{}, err
	}
	return Table{Source: source, Files: []string{path}}, nil
}

func openPattern(mapType, path string, _ Options) (Table, error) {
	kind := posix
	if mapType == "pcre" {
		kind = pcre
	}
	source, err := openPatternFile(kind, path)
	if err != nil {
		return Table{}, err
	}
	return Table{Source: source, Pattern: true, Files: []string{path}}, nil
}

func openInline(_, text string, _ Options) (Table, error) {
	source, err := parseInline(text)
	if err != nil {
		return Table{}, fmt.Errorf("%w; write inline:{key=value, {key = several words}}", err)
	}
	return Table{Source: source}, nil
}

func openStatic(_, text string, _ Options) (Table, error) {
	source, err := parseStatic(text)
	if err != nil {
		return Table{}, fmt.Errorf("%w; write static:value or static:{several words}", err)
	}
	return Table{Source: source}, nil
}

func openUnion(_, text string, o Options) (Table, error) {
	if o.depth++; o.depth > maxDepth {
		return Table{}, fmt.Errorf("more than %d unions within each other", maxDepth)
	}
	union, err := parseUnion(text, func(spec string) (Table, error) { return Open(spec, o) })
	if err != nil {
		return Table{}, err
	}
	return Table{Source: union, Pattern: union.Pattern(), Files: Files(union...)}, nil
}
