package milterd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/milter"
)

// exemptions are the tables of --from-exempt: exceptions for logins.
type exemptions struct {
	tables      []postmap.Table
	loginDomain string // for logins without a domain
}

// lookup returns the exemption of a login from the first table that has one. Its keys
// are the login as Postfix names it, the login with or without the domain of bare
// logins, and @domain. A table of patterns is asked only for the first of these.
func (e *exemptions) lookup(ctx context.Context, login string) (milter.Exemption, error) {
	for i := range e.tables {
		table := &e.tables[i]
		for _, key := range e.keys(login, table.Pattern) {
			values, err := table.Source.Lookup(ctx, key)
			if err != nil {
				return milter.Exemption{}, fmt.Errorf("table %.80s: %w", table.Spec, err)
			}
			if len(values) > 0 {
				return parseExemption(table, key, values), nil
			}
		}
	}
	return milter.Exemption{}, nil
}

func (e *exemptions) keys(login string, pattern bool) []string {
	if pattern {
		return []string{login}
	}
	key := mailaddr.FoldKey(login)
	keys := []string{key}
	local, domain, qualified := strings.Cut(key, "@")
	switch {
	case !qualified && e.loginDomain != "":
		domain = e.loginDomain
		keys = append(keys, key+"@"+domain)
	case qualified && domain == e.loginDomain:
		keys = append(keys, local)
	}
	if domain != "" {
		keys = append(keys, "@"+domain)
	}
	return keys
}

// parseExemption parses an entry. An unknown word allows nothing. It is a problem that
// is shown in the record of each mail that used the entry.
func parseExemption(table *postmap.Table, key string, values []string) (e milter.Exemption) {
	var problems []error
	for _, value := range values {
		for _, word := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' }) {
			if err := addExemption(&e, word); err != nil {
				problems = append(problems, fmt.Errorf("%s: exemption of %.80q: %w", cmp.Or(table.Locate(key), table.Spec), key, err))
			}
		}
	}
	e.Problem = errors.Join(problems...)
	return e
}

func addExemption(e *milter.Exemption, word string) error {
	switch strings.ToLower(word) {
	case "any", "ok": // OK is the word of access(5)
		e.Any = true
		return nil
	case "redirect":
		e.Redirect = true
		return nil
	case "display":
		e.Display = true
		return nil
	}
	if name, ok := strings.CutPrefix(word, "@"); ok {
		domain, err := mailaddr.ParseDomain(name)
		if err == nil {
			e.Domains = append(e.Domains, domain)
		}
		return err
	}
	a := mailaddr.Parse(word)
	if !a.IsValid() || a.Domain == "" {
		return fmt.Errorf("%.80q is not any, redirect, display, an address or @domain", word)
	}
	e.Addresses = append(e.Addresses, mailaddr.FoldKey(a.String()))
	return nil
}

// checkExemptions checks all entries of a table, if the table can list them.
func checkExemptions(table *postmap.Table) error {
	list, ok := table.Source.(postmap.Enumerator)
	if !ok {
		return nil
	}
	keys, ok := list.Keys()
	if !ok {
		return nil
	}
	for key := range keys {
		values, err := table.Source.Lookup(context.Background(), key)
		if err != nil {
			return err
		}
		if e := parseExemption(table, key, values); e.Problem != nil {
			return e.Problem
		}
	}
	return nil
}
