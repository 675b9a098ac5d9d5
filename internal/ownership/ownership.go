// Package ownership answers: may this login use this envelope sender?
//
// The answer comes from Postfix's own tables. Owner tables have the form of
// smtpd_sender_login_maps: the result of a sender's look-up is a list of logins.
// Alias tables have that of virtual_alias_maps: a login owns every address that
// is delivered to it directly. A login may also own its own address.
//
// One table is asked in Postfix's order and its first entry counts: user@domain,
// the same without an address extension, user and user without the extension if
// the domain is local, @domain. Pattern tables are asked with the full address
// only. Several tables are a union: what one of them grants, none takes away.
//
// Invariants:
//   - a table that fails makes the answer an error ("could not tell") unless
//     another one grants the sender: a failure never turns into yes or no;
//   - logins and local parts are compared ignoring case by Unicode's rules, their
//     domains as A-labels;
//   - the package keeps no state between questions, logs nothing and starts no
//     goroutine; tables that live in files are immutable, and a reload builds new
//     ones.
package ownership

import (
	"context"
	"errors"
	"slices"
)

// Source is one open table. Lookup gives every value the key has, empty if it is
// not listed; an error means that the source could not tell.
type Source interface {
	Lookup(ctx context.Context, key string) ([]string, error)
	Close() error
}

// Locator is a [Source] that knows where an entry stands, as "path:line" or the
// like; "" if it does not.
type Locator interface {
	Locate(key string) string
}

// Table is a source with its name and the way it wants to be asked.
type Table struct {
	Spec    string // as configured: "hash:/etc/postfix/owners"
	Source  Source
	Pattern bool     // asked with full addresses as they are; others get folded keys and parts of addresses
	Files   []string // that the source was read from, to be watched for changes
}

// Locate tells where the entry of a key stands, "" if the source cannot tell.
func (t Table) Locate(key string) string {
	if locator, ok := t.Source.(Locator); ok {
		return locator.Locate(key)
	}
	return ""
}

// Files gives the files of all tables, sorted, each once.
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
