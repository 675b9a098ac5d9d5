package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/policy/checks"
)

// permits are the restrictions that end a list for permitted clients.
var permits = []string{
	"permit", "permit_mynetworks", "permit_inet_interfaces", "permit_sasl_authenticated", "permit_tls_clientcerts", "permit_tls_all_clientcerts",
	"permit_auth_destination", "permit_mx_backup", "permit_dnswl_client", "permit_rhswl_client",
}

// ends are the restrictions after which nothing is evaluated.
var ends = []string{"permit", "reject", "defer"}

// firstOf returns the first of words that is in wanted.
func firstOf(words, wanted []string) string {
	if i := slices.IndexFunc(words, func(w string) bool { return slices.Contains(wanted, w) }); i >= 0 {
		return words[i]
	}
	return ""
}

// checkOrder looks at the position of the hooks for mail from the internet.
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
		if slices.Contains(h.Before, "permit_auth_destination") {
			found = appendNew(found, failf("move check_policy_service in front of it", "%s of %s: the hook is behind permit_auth_destination: mail for your own domains passes without it", h.List, h.Service))
			continue
		}
		found = appendNew(found, f.tooEarly(h)...)
	}
	found = append(found, f.askedTwice()...)
	return orOK(found, "the hooks are where they should be")
}

// isOfStrangers reports whether a check is for mail from the internet.
func isOfStrangers(check string) bool {
	return check == checks.DNSBLName || check == checks.GreylistName
}

// tooEarly judges what comes before a hook for mail from the internet.
func (f *Facts) tooEarly(h Hook) []Finding {
	if isNo(h.Service.Value("smtpd_delay_reject")) && h.List != "smtpd_recipient_restrictions" {
		return nil // checkDelay reports this
	}
	guards := slices.Clone(h.Before)
	switch h.List {
	case "smtpd_data_restrictions", "smtpd_end_of_data_restrictions":
		guards = append(guards, h.Service.restrictions("smtpd_recipient_restrictions")...)
		fallthrough
	case "smtpd_recipient_restrictions": // relaying is refused before or after it
		guards = append(guards, h.Service.restrictions("smtpd_relay_restrictions")...)
	}
	if firstOf(guards, []string{"reject_unauth_destination", "defer_unauth_destination", "reject", "defer"}) == "" {
		return []Finding{warnf("put reject_unauth_destination in front of check_policy_service, in smtpd_recipient_restrictions",
			"%s of %s asks about mail for other people's domains too: relay attempts fill the greylist and cost DNS questions", h.List, h.Service)}
	}
	return nil
}

// askedTwice finds checks that two lists of a service ask for.
func (f *Facts) askedTwice() []Finding {
	var found []Finding
	for i, h := range f.Hooks {
		for _, earlier := range f.Hooks[:i] {
			for _, name := range f.asks(h) {
				if name == checks.LimitName && h.List == endOfData {
					continue // it is asked for both before and after the data of a mail
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

// isNo reports whether a parameter is no. Postfix ignores the case.
func isNo(value string) bool { return strings.EqualFold(value, "no") }

// checkDelay looks at whether the checks are asked when they have what they need. With
// smtpd_delay_reject = no, a list is evaluated before all attributes are known; some lists
// come after all that a check could decide.
func checkDelay(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil || len(f.Hooks) == 0 {
		return nil
	}
	var found []Finding
	for _, h := range f.Hooks {
		for _, name := range f.asks(h) {
			if lacks := tooSoon(h, name); lacks != "" {
				found = appendNew(found, failf(h.Service.unset("smtpd_delay_reject")+" (yes is the default), or move the hook to smtpd_recipient_restrictions",
					"%s of %s asks for %s while %s, because smtpd_delay_reject is no", h.List, h.Service, name, lacks))
				continue
			}
			late := tooLate(h.List, name)
			if late == "" || name == ownershipWord || name == checks.LimitName && !f.limits() || f.asksInTime(h.Service, name) {
				continue // checkOwnership reports its own
			}
			found = appendNew(found, failf(fmt.Sprintf("move %s to the hook in %s", name, placeOf(name)), "%s of %s asks for %s, and nowhere else: %s", h.List, h.Service, name, late))
		}
	}
	return orOK(found, "every check is asked when it has what it needs")
}

// tooSoon returns what a check lacks at a hook whose list is evaluated early, or "".
func tooSoon(h Hook, name string) string {
	if !isNo(h.Service.Value("smtpd_delay_reject")) || name == ownershipWord && h.List == "smtpd_sender_restrictions" {
		return ""
	}
	return map[string]string{"smtpd_client_restrictions": "the client's address is known and no more", "smtpd_helo_restrictions": "neither sender nor recipient is known",
		"smtpd_sender_restrictions": "no recipient is known"}[h.List]
}

// tooLate returns why a check cannot decide in a list about a mail, or "" if it can.
func tooLate(list, name string) string {
	switch {
	case list == "smtpd_etrn_restrictions":
		return "ETRN brings no mail, and the check never decides"
	case name == checks.GreylistName && (list == "smtpd_data_restrictions" || list == endOfData):
		return "all recipients are accepted by then, and nothing is greylisted"
	case name == checks.DNSBLName && (list == "smtpd_data_restrictions" || list == endOfData):
		return "Postfix names no recipient there when a mail has several, and such mail passes"
	case name == checks.LimitName && list == "smtpd_data_restrictions":
		return "recipients count when they are named, or at the end of the mail, and none counts"
	}
	return ""
}

// asksInTime reports whether a service asks for a check in a list where it can decide.
func (f *Facts) asksInTime(s *Service, name string) bool {
	return slices.ContainsFunc(f.Hooks, func(h Hook) bool {
		return h.Service == s && slices.Contains(f.asks(h), name) && tooSoon(h, name) == "" && tooLate(h.List, name) == ""
	})
}

// placeOf returns the list in which a check is usually asked for.
func placeOf(name string) string {
	if isOfStrangers(name) {
		return "smtpd_recipient_restrictions"
	}
	return "smtpd_sender_restrictions"
}
