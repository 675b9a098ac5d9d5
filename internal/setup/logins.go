package setup

import (
	"context"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/internal/postmap"
)

// loginDomain plans the domain for logins without one. System users log in as "alice".
func (p *planner) loginDomain(origin string, locals []string) error {
	domain := p.LoginDomain
	for _, candidate := range []string{origin, p.value("mydomain")} {
		if domain == "" && slices.Contains(locals, strings.ToLower(candidate)) {
			domain = candidate
		}
	}
	switch {
	case domain != "":
		p.policyd.set("login-domain", domain)
	case len(locals) > 0 || !p.hasVirtual():
		p.plan.Asks = append(p.plan.Asks, Question{Flag: "login-domain", Text: "The domain of users who log in without one (empty if none do)"})
		return p.warnOfLogins()
	}
	return nil
}

// hasVirtual reports whether this Postfix has virtual domains: their users log in with
// their address. An instance that only sends has neither them nor local domains, and its
// users may log in in either way.
func (p *planner) hasVirtual() bool {
	return slices.ContainsFunc([]string{"virtual_mailbox_domains", "virtual_alias_domains"}, func(name string) bool {
		return len(postconf.Split(p.value(name))) > 0
	})
}

// warnOfLogins warns that users who log in without a domain need one, unless the tables of
// owners name users in this way.
func (p *planner) warnOfLogins() error {
	own, err := p.document(p.Policyd.Config)
	if err != nil || !p.runs("ownership") {
		return err
	}
	unless, known := "", true
	for _, spec := range p.ownerTables(own) {
		if brokenTables([]string{spec}) {
			continue // the plan makes it, and it is empty
		}
		bare, listed := hasBareLogin(spec)
		if bare {
			return nil
		}
		known = known && listed
	}
	if !known {
		unless = ", unless the tables of owners name them without one"
	}
	p.warn("if users log in without a domain, name it with --login-domain, or each of them is refused%s", unless)
	return nil
}

// ownerTables returns the tables of owners that the policy daemon will have: those of its
// file, whose settings stay, or else those of the plan.
func (p *planner) ownerTables(own *config.Document) []string {
	if tables := own.Values("owners"); len(tables) > 0 && !brokenTables(tables) {
		return tables
	}
	for _, s := range p.policyd.list {
		if s.Name == "owners" {
			return s.Values
		}
	}
	return nil
}

// hasBareLogin reports whether a table has an owner without a domain. listed is false if
// the table cannot be read to its end: servers cannot be listed.
func hasBareLogin(spec string) (bare, listed bool) {
	table, err := postmap.Open(spec, postmap.Options{})
	if err != nil {
		return false, false // the daemon will say why
	}
	defer func() { _ = postmap.Close(table) }() // it was only read
	enumerator, _ := table.Source.(postmap.Enumerator)
	if enumerator == nil {
		return false, false
	}
	keys, listed := enumerator.Keys()
	if !listed {
		return false, false
	}
	for key := range keys {
		owners, err := table.Source.Lookup(context.Background(), key)
		if err != nil {
			return false, false
		}
		for _, value := range owners {
			if slices.ContainsFunc(postconf.Split(value), func(login string) bool { return !strings.Contains(login, "@") }) {
				return true, true
			}
		}
	}
	return false, true
}
