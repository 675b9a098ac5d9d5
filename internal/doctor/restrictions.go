package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/policy/checks"
)

// permits are the restrictions that end a list for those who are permitted.
var permits = []string{"permit", "permit_mynetworks", "permit_sasl_authenticated", "permit_tls_clientcerts", "permit_tls_all_clientcerts", "permit_auth_destination", "permit_mx_backup"}

// ends are the restrictions behind which nothing is asked.
var ends = []string{"permit", "reject", "defer"}

// checkContext looks at what the hooks name.
func checkContext(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil || len(f.Hooks) == 0 {
		return nil
	}
	var found []Finding
	runs := f.Policyd.list("checks")
	for _, h := range f.Hooks {
		if h.Broken != "" {
			found = appendNew(found, failf("write { policy_context = dnsbl, greylist } with braces of its own inside the others",
				"%s: check_policy_service %s: %q is no attribute: a comma ends policy_context, and smtpd does not start", h.List, h.Endpoint, h.Broken))
		}
		for _, word := range h.Context {
			switch {
			case !slices.Contains(contextWords(), word):
				found = appendNew(found, failf("correct policy_context; the words are "+strings.Join(contextWords(), ", "),
					"%s of %s: policy_context names %q, which is no check", h.List, h.Service, word))
			case !slices.Contains(runs, word) && f.Policyd.SettingsErr == nil:
				found = appendNew(found, failf(fmt.Sprintf("add %q to checks in policyd.toml, or take it out of policy_context", word),
					"%s of %s: policy_context names %s, which postern-policyd does not run (checks = %s)", h.List, h.Service, word, strings.Join(runs, ", ")))
			}
		}
		if socket := f.policySocket(h); socket != nil && len(h.Context) > 0 && len(socket.Checks) > 0 {
			for _, word := range h.Context {
				if !slices.Contains(socket.Checks, word) {
					found = appendNew(found, failf("take policy_context out, or ask another socket", "%s of %s: the socket %s is bound to %s, and policy_context asks for %s",
						h.List, h.Service, h.Endpoint, strings.Join(socket.Checks, ", "), word))
				}
			}
		}
	}
	for _, name := range runs {
		if name == checks.LimitName && !f.limits() {
			continue // it has nothing to say
		}
		if !f.attached(name) && f.Policyd.SettingsErr == nil {
			found = append(found, warnf(fmt.Sprintf("name %s in the policy_context of a hook (postern setup shows the line), or take it out of checks in policyd.toml", name),
				"the check %s runs, and no hook of Postfix asks for it", name))
		}
	}
	if shadow := f.Policyd.list("shadow"); len(found) == 0 && len(shadow) > 0 {
		return []Finding{okf("every hook names checks that run; %s only watch (shadow)", strings.Join(shadow, ", "))}
	}
	return orOK(found, "every hook names checks that run")
}

// ownershipWord is the check whose hook must not be missed.
const ownershipWord = checks.OwnershipName

// checkOwnership looks for services where users send without being asked.
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
	return orOK(found, "every service that takes logins (%d) asks for ownership", logins)
}

// ownershipOf judges one service that takes logins.
func (f *Facts) ownershipOf(s *Service) []Finding {
	list, empty := f.overridden(s)
	fix := fmt.Sprintf("postconf -P '%s/smtpd_sender_restrictions=$postern_ownership' after postconf -e 'postern_ownership = check_policy_service { inet:127.0.0.1:10045, policy_context=ownership }'", s)
	var late *Hook
	for _, h := range f.Hooks {
		if h.Service != s || !slices.Contains(f.asks(h), ownershipWord) {
			continue
		}
		if permit := firstOf(h.Before, permits); permit == "" && firstOf(h.Before, ends) == "" {
			return nil
		}
		late = &h
	}
	asksOwnership := func(h Hook) bool { return f.isOurs(h) && slices.Contains(f.asks(h), ownershipWord) }
	if late == nil && s.throughTables(asksOwnership) {
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

// behind is about an ownership hook that comes too late.
func behind(s *Service, h *Hook) Finding {
	fix := "move check_policy_service to the front of " + h.List
	permit := firstOf(h.Before, append(slices.Clone(permits), ends...))
	if permit == "permit_mynetworks" {
		return warnf(fix, "%s: ownership is behind permit_mynetworks in %s: users in mynetworks (%s) are not asked", s, h.List, s.Value("mynetworks"))
	}
	return failf(fix, "%s: ownership is behind %s in %s: users who have logged in are never asked", s, permit, h.List)
}

// overridden finds the list of s that keeps it from the ownership hook of main.cf, or
// the one that the hook should be in; and the undefined parameter that empties it.
func (f *Facts) overridden(s *Service) (list, empty string) {
	plain := &Service{Overrides: map[string]string{}, postfix: f.Postfix}
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

// undefinedIn is the first undefined parameter that a text names, "" for none.
func (f *Facts) undefinedIn(text string) string {
	for _, m := range named.FindAllString(text, -1) {
		if name := strings.Trim(m, "${}()"); slices.Contains(f.Postfix.Undefined, name) {
			return name
		}
	}
	return ""
}

// firstOf is the first of words that is among those wanted.
func firstOf(words, wanted []string) string {
	if i := slices.IndexFunc(words, func(w string) bool { return slices.Contains(wanted, w) }); i >= 0 {
		return words[i]
	}
	return ""
}

// checkOrder looks at the hooks of the internet's mail.
func checkOrder(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil || len(f.Hooks) == 0 {
		return nil
	}
	var found []Finding
	for _, h := range f.Hooks {
		if end := firstOf(h.Before, ends); end != "" {
			found = appendNew(found, failf("move check_policy_service in front of it", "%s of %s: the hook is behind %s, and is never reached", h.List, h.Service, end))
			continue
		}
		if n := len(h.Before); n > 0 && h.Before[n-1] == "warn_if_reject" {
			found = appendNew(found, warnf("take warn_if_reject away; shadow in policyd.toml lets checks only watch", "%s of %s: behind warn_if_reject the hook's answers are only logged", h.List, h.Service))
		}
		if !h.Service.isInbound() || !slices.ContainsFunc(f.asks(h), isOfStrangers) {
			continue
		}
		found = appendNew(found, f.tooEarly(h)...)
	}
	found = append(found, f.askedTwice()...)
	return orOK(found, "the hooks are where they should be")
}

// isOfStrangers reports whether a check is for the internet's mail.
func isOfStrangers(check string) bool {
	return check == checks.DNSBLName || check == checks.GreylistName
}

// tooEarly judges what comes before a hook for the internet's mail.
func (f *Facts) tooEarly(h Hook) []Finding {
	if h.Service.Value("smtpd_delay_reject") == "no" && h.List != "smtpd_recipient_restrictions" {
		return nil // checkDelay has a word about it
	}
	guards := slices.Clone(h.Before)
	switch h.List {
	case "smtpd_data_restrictions", "smtpd_end_of_data_restrictions":
		guards = append(guards, postconf.Split(h.Service.Value("smtpd_recipient_restrictions"))...)
		fallthrough
	case "smtpd_recipient_restrictions": // before it or behind it, relaying is refused
		guards = append(guards, postconf.Split(h.Service.Value("smtpd_relay_restrictions"))...)
	}
	if firstOf(guards, []string{"reject_unauth_destination", "defer_unauth_destination", "reject", "defer"}) == "" {
		return []Finding{warnf("put reject_unauth_destination in front of check_policy_service, in smtpd_recipient_restrictions",
			"%s of %s asks about mail for other people's domains too: relay attempts fill the greylist and cost DNS questions", h.List, h.Service)}
	}
	return nil
}

// askedTwice finds checks that two lists of one service ask for.
func (f *Facts) askedTwice() []Finding {
	var found []Finding
	for i, h := range f.Hooks {
		for _, earlier := range f.Hooks[:i] {
			for _, name := range f.asks(h) {
				if name == checks.LimitName && h.List == endOfData {
					continue // asked at both ends of a mail
				}
				if h.Service == earlier.Service && slices.Contains(f.asks(earlier), name) {
					found = appendNew(found, warnf(fmt.Sprintf("leave %s in one of them (policy_context)", name),
						"%s asks for %s in %s and in %s", h.Service, name, earlier.List, h.List))
				}
			}
		}
	}
	return found
}

// checkDelay: without smtpd_delay_reject a list is evaluated as soon as it can be.
func checkDelay(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil || len(f.Hooks) == 0 {
		return nil
	}
	var found []Finding
	for _, h := range f.Hooks {
		if h.Service.Value("smtpd_delay_reject") != "no" {
			continue
		}
		lacks := map[string]string{"smtpd_client_restrictions": "the client's address is known and no more", "smtpd_helo_restrictions": "neither sender nor recipient is known",
			"smtpd_sender_restrictions": "no recipient is known"}[h.List]
		for _, name := range f.asks(h) {
			if lacks == "" || name == ownershipWord && h.List == "smtpd_sender_restrictions" {
				continue
			}
			found = appendNew(found, failf("postconf -X smtpd_delay_reject (yes is the default), or move the hook to smtpd_recipient_restrictions",
				"%s of %s asks for %s while %s, because smtpd_delay_reject is no", h.List, h.Service, name, lacks))
		}
	}
	return orOK(found, "every check is asked when it has what it needs")
}

// checkActions looks at what happens while a daemon is away.
func checkActions(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	var found []Finding
	shadow := f.Policyd.list("shadow")
	onlyWatched := slices.Contains(shadow, "all") || slices.Contains(shadow, ownershipWord) // refuses nothing when it is there
	for _, h := range f.Hooks {
		action := strings.ToUpper(first(strings.Fields(h.Default)))
		opens := slices.Contains([]string{"DUNNO", "OK", "PERMIT", "INFO", "WARN", "PREPEND"}, action)
		asks := f.asks(h)
		owned := slices.Contains(asks, ownershipWord) && h.Service.takesLogins() && !f.Policyd.shadows(ownershipWord)
		switch {
		case owned && opens && !onlyWatched:
			found = appendNew(found, failf("take default_action out of this hook (and smtpd_policy_service_default_action out of main.cf), so that Postfix defers (451)",
				"%s of %s: default_action is %s: while postern-policyd is away, users send as anyone", h.List, h.Service, h.Default))
		case !slices.Contains(asks, ownershipWord) && !opens && h.Service.isInbound() && slices.ContainsFunc(asks, isOfStrangers):
			found = appendNew(found, warnf("write check_policy_service { "+h.Endpoint+", …, default_action=DUNNO }",
				"%s of %s: default_action is %q: while postern-policyd is away, all mail from the internet is deferred", h.List, h.Service, h.Default))
		}
	}
	for _, m := range f.Milters {
		if m.Ours == nil || m.Default == "accept" || m.Service != nil && !m.Service.isInbound() {
			continue
		}
		found = appendNew(found, warnf("write { "+m.Endpoint+", default_action=accept }",
			"%s: the default action of %s is %s: while postern-milterd is away, this mail is not taken", m.where(), m.Endpoint, m.Default))
	}
	return orOK(found, "users' mail waits and the internet's passes while a daemon is away")
}
