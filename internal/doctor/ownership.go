package doctor

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/internal/setup"
	"github.com/postern-mail/postern/policy/checks"
)

// ownershipWord is the check that every user's mail must be asked for.
const ownershipWord = checks.OwnershipName

// checkOwnership finds services where users send without the ownership check.
func checkOwnership(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil || !slices.Contains(f.Policyd.list("checks"), ownershipWord) || len(f.Hooks) == 0 {
		return nil
	}
	var found []Finding
	logins := 0
	for _, s := range f.Postfix.smtpds() {
		if s.takesLogins() {
			logins++
			found = append(found, f.ownershipOf(s)...)
		}
	}
	if logins == 0 {
		return []Finding{okf("no service takes logins, so that there is no one to ask for ownership")}
	}
	found = append(found, f.leftAliases()...)
	return orOK(found, "every service that takes logins (%d) asks for ownership", logins)
}

// leftAliases finds owner-aliases that an earlier postern setup has taken from
// virtual_alias_maps although Postfix has tables of owners: whoever gets the mail of an
// alias then owns it, also where those tables give it to others.
func (f *Facts) leftAliases() []Finding {
	const aliases = "owner-aliases"
	hasOwners := slices.ContainsFunc(f.Postfix.smtpds(), func(s *Service) bool { return s.takesLogins() && s.Value("smtpd_sender_login_maps") != "" })
	if !hasOwners || len(f.Policyd.list("owners")) == 0 {
		return nil
	}
	wrote, _ := setup.JournalsOf(f.Options.paths.journals, f.Postfix.Directory).Wrote(aliases) // others than root cannot see it
	var files []string
	for _, w := range wrote {
		if now, err := config.ReadDocument(w.Path); err == nil && slices.Equal(now.Values(aliases), w.Values) {
			files = append(files, w.Path)
		}
	}
	if len(files) == 0 {
		return nil
	}
	return []Finding{warnf(fmt.Sprintf("take %s out of %s", aliases, strings.Join(files, " and ")),
		"an earlier postern setup has set %s from virtual_alias_maps: whoever gets the mail of an alias may send as it, also where smtpd_sender_login_maps gives it to others", aliases)}
}

// ownershipOf judges one service that takes logins.
func (f *Facts) ownershipOf(s *Service) []Finding {
	list, empty := f.overridden(s)
	fix := f.askOwnership(s)
	var late *Hook
	for _, h := range f.Hooks {
		if h.Service != s || !slices.Contains(f.asks(h), ownershipWord) || tooLate(h.List, ownershipWord) != "" {
			continue
		}
		if permit := firstOf(h.Before, permits); permit == "" && firstOf(h.Before, ends) == "" {
			return nil
		}
		late = &h
	}
	asksOwnership := func(h Hook) bool { return f.isOurs(h) && slices.Contains(f.asks(h), ownershipWord) }
	if late == nil && slices.ContainsFunc(s.throughTables(), asksOwnership) {
		return []Finding{warnf("put the hook itself in front, or check_sasl_access static:CLASS", "%s: whether a table leads to the restriction class that asks for ownership cannot be seen", s)}
	}
	if late != nil {
		return []Finding{behind(s, late)}
	}
	why := "its lists do not ask for it"
	switch {
	case empty != "":
		why = fmt.Sprintf("its %s is $%s, which is not defined, and so is empty", list, empty)
		fix += fmt.Sprintf(" (or define %s in main.cf)", empty)
	case list != "":
		why = fmt.Sprintf("master.cf gives it a %s of its own, without the hook", list)
	}
	if !s.isSubmission() {
		fix = fmt.Sprintf("postconf -P '%s/smtpd_sasl_auth_enable=no', so that users log in at submission only, or put the ownership hook into its smtpd_sender_restrictions", s)
	}
	return []Finding{failf(fix, "%s: users who log in here send as anyone: %s", s, why)}
}

// askOwnership returns how to have a service ask for ownership, in front of what its list
// of sender restrictions has. master.cf has no white space in values.
func (f *Facts) askOwnership(s *Service) string {
	const sender = "smtpd_sender_restrictions"
	list, rest := f.Postfix.raw[sender], ""
	if s.overrides(sender) {
		list = s.Raw[sender]
	}
	words, more := "$postern_ownership", strings.Join(postconf.Split(list), ",")
	switch {
	case more == "" || f.undefinedIn(list) != "":
	case strings.ContainsAny(more, " \t{") || more != dnsbl.HideKeys(more): // a command without the key is of no use
		rest = ", and behind it what the list has today, as a parameter of main.cf,"
	default:
		words += "," + more
	}
	return fmt.Sprintf("postconf -P '%s/%s=%s'%s after postconf -e 'postern_ownership = check_policy_service { %s, policy_context=ownership }'", s, sender, words, rest, f.askAt(ownershipWord))
}

// askAt returns the endpoint at which a check can be asked, as Postfix spells it.
func (f *Facts) askAt(check string) string {
	for _, l := range f.policySockets {
		if len(l.Checks) == 0 || slices.Contains(l.Checks, check) {
			return f.Postfix.spell(l.place)
		}
	}
	return "inet:127.0.0.1:10045"
}

// behind returns the finding for an ownership hook that comes too late.
func behind(s *Service, h *Hook) Finding {
	fix := "move check_policy_service to the front of " + h.List
	permit := firstOf(h.Before, append(slices.Clone(permits), ends...))
	switch permit {
	case "permit_mynetworks":
		return warnf(fix, "%s: ownership is behind permit_mynetworks in %s: users in mynetworks (%s) are not asked", s, h.List, s.Value("mynetworks"))
	case "permit_inet_interfaces":
		return warnf(fix, "%s: ownership is behind permit_inet_interfaces in %s: users on this machine, such as those of a webmail, are not asked", s, h.List)
	}
	return failf(fix, "%s: ownership is behind %s in %s: users who have logged in are never asked", s, permit, h.List)
}

// overridden finds the list of s that replaces the list of main.cf where the ownership
// hook is, or should be. If an undefined parameter empties that list, it returns its
// name too.
func (f *Facts) overridden(s *Service) (list, empty string) {
	plain := &Service{postfix: f.Postfix}
	for _, h := range plain.hooks() {
		if s.overrides(h.List) && f.isOurs(h) && slices.Contains(f.asks(h), ownershipWord) {
			return h.List, f.undefinedIn(s.Raw[h.List])
		}
	}
	const sender = "smtpd_sender_restrictions"
	if s.overrides(sender) {
		return sender, f.undefinedIn(s.Raw[sender])
	}
	return "", ""
}

// named matches $name, ${name} and $(name).
var named = regexp.MustCompile(`\$(?:\{(\w+)\}|\((\w+)\)|(\w+))`)

// undefinedIn returns the first undefined parameter that a text names, or "".
func (f *Facts) undefinedIn(text string) string {
	for _, m := range named.FindAllString(text, -1) {
		if name := strings.Trim(m, "${}()"); slices.Contains(f.Postfix.Undefined, name) {
			return name
		}
	}
	return ""
}
