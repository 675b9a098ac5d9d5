// Package postmap answers: which values does this key have in this Postfix
// table?
//
// A table is named as in Postfix, "type:name", and its file is the one that
// Postfix reads: indexed texts (hash: and its like, texthash:), patterns (regexp:,
// pcre:), tables that are their own name (inline:, static:, unionmap:), and tables
// in a server (sqlite:, mysql:, pgsql:, ldap:, socketmap:). [Open] opens one. The
// package does not know what a table is used for.
//
// Invariants:
//   - a table answers what postmap -q answers, or fails when it is opened;
//   - a source that fails returns an error, never "not listed";
//   - tables in files are immutable, and a reload opens new ones;
//   - size, entries, nesting and connections are bounded;
//   - the package logs nothing: Options.Warn gets what is worth a look.
package postmap

import (
	"context"
	"errors"
	"iter"
	"slices"
)

// Source is one open table. Lookup returns every value of the key, none if it is
// not listed; an error means that the source could not tell.
type Source interface {
	Lookup(ctx context.Context, key string) ([]string, error)
	Close() error
}

// Locator is a [Source] that knows where an entry is written down, as "path:line"
// or the like; "" if it does not.
type Locator interface {
	Locate(key string) string
}

// Enumerator is a [Source] that can list all its keys. The second value is false
// if it cannot after all, as a union with a server among its members.
type Enumerator interface {
	Keys() (iter.Seq[string], bool)
}

// Table is a source with its name and the way it wants to be asked.
type Table struct {
	Spec    string // as configured: "hash:/etc/postfix/owners"
	Source  Source
	Pattern bool     // asked with full addresses as they are; others get folded keys and parts of addresses
	Files   []string // that the source was read from, to be watched for changes
}

// Locate returns where the entry of a key is written down, "" if the source does
// not know.
func (t Table) Locate(key string) string {
	if locator, ok := t.Source.(Locator); ok {
		return locator.Locate(key)
	}
	return ""
}

// Prober is a [Source] that can be asked whether it could answer at all.
type Prober interface {
	Probe(ctx context.Context) error
}

// Probe asks the table for a key that no one has, past every cache and domain list.
func (t Table) Probe(ctx context.Context) error {
	if prober, ok := t.Source.(Prober); ok {
		return prober.Probe(ctx)
	}
	return nil
}

// Len returns how many entries or rules the table has, -1 if that is not known.
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
