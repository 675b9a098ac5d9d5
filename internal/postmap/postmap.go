// Package postmap looks up keys in Postfix's lookup tables.
//
// A table is named as in Postfix, "type:name", and is read from the file that Postfix
// uses. There are indexed texts (hash: and similar types, texthash:), patterns
// (regexp:, pcre:), tables whose name is their content (inline:, static:, unionmap:),
// and tables in a database or server (sqlite:, mysql:, pgsql:, ldap:, socketmap:).
// [Open] opens one. The package does not know what a table is used for.
//
// Invariants:
//   - a table returns what postmap -q returns, or cannot be opened;
//   - a source that fails returns an error, never "not listed";
//   - tables in files are immutable, and a reload opens new ones;
//   - size, entries, nesting and connections are bounded;
//   - the package logs nothing: warnings are passed to Options.Warn.
package postmap

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postmap/remote"
)

// Source is one open table. Lookup returns every value of the key, none if the key is
// not listed. An error means that this is not known.
type Source interface {
	Lookup(ctx context.Context, key string) ([]string, error)
	Close() error
}

// Locator is a [Source] that can return the place of an entry, such as "path:line";
// "" if the place is not known.
type Locator interface {
	Locate(key string) string
}

// Enumerator is a [Source] that can list all its keys. The second value is false if
// it cannot, such as a union with a server among its members.
type Enumerator interface {
	Keys() (iter.Seq[string], bool)
}

// Table is a source with its name and the kind of keys that it is asked for.
type Table struct {
	Spec    string // as configured: "hash:/etc/postfix/owners"
	Source  Source
	Pattern bool     // keys are full addresses, not folded; other tables get folded keys and parts of addresses
	Files   []string // the files of the source, to be watched for changes
}

// Locate returns the place of the entry of a key, "" if it is not known.
func (t Table) Locate(key string) string {
	if locator, ok := t.Source.(Locator); ok {
		return locator.Locate(key)
	}
	return ""
}

// Prober is a [Source] that can be tested: Probe returns an error if it cannot answer.
type Prober interface {
	Probe(ctx context.Context) error
}

// Probe looks up a key that does not exist. It bypasses every cache and domain list.
func (t Table) Probe(ctx context.Context) error {
	if prober, ok := t.Source.(Prober); ok {
		return prober.Probe(ctx)
	}
	return nil
}

// EachServer calls visit for each table with servers: the table itself, or members of
// its union. down is the last failure while its breaker is open, else nil.
func (t Table) EachServer(visit func(table string, down error)) {
	switch source := t.Source.(type) {
	case *remote.Table:
		visit(strings.TrimPrefix(t.Spec, "proxy:"), source.Down())
	case unionTable:
		for _, member := range source {
			member.EachServer(visit)
		}
	}
}

// Len returns the number of entries or rules of the table, -1 if it is not known.
func (t Table) Len() int {
	if counted, ok := t.Source.(interface{ Len() int }); ok {
		return counted.Len()
	}
	return -1
}

// Files returns the files of all tables, sorted, each once.
func Files(tables ...Table) []string {
	var files []string
	for _, t := range tables {
		files = append(files, t.Files...)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// Close closes all tables.
func Close(tables ...Table) error {
	var errs []error
	for _, t := range tables {
		errs = append(errs, t.Source.Close())
	}
	return errors.Join(errs...)
}
