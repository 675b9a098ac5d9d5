package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/policy/checks"
)

// endOfData is the list at the end of a mail, where the number of recipients is final.
const endOfData = "smtpd_end_of_data_restrictions"

// limits reports whether any limit is set.
func (f *Facts) limits() bool {
	return slices.Contains(f.Policyd.list("checks"), checks.LimitName) && len(f.Policyd.list("limit"))+len(f.Policyd.list("limit-overrides")) > 0
}

// checkLimit looks at where the limit check is asked for.
func checkLimit(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil || len(f.Hooks) == 0 {
		return nil
	}
	if !f.limits() {
		return []Finding{okf("nothing is limited")}
	}
	var found []Finding
	ofLogins := len(f.Policyd.list("limit-overrides")) > 0 ||
		slices.ContainsFunc(f.Policyd.list("limit"), func(rule string) bool { return strings.HasPrefix(rule, "login") })
	for _, s := range f.Postfix.smtpds() {
		if ofLogins && s.takesLogins() && s.isSubmission() && !f.asksUnpermitted(s, checks.LimitName) {
			found = append(found, failf(fmt.Sprintf("name limit in the policy_context of its smtpd_sender_restrictions (policy_context = ownership, limit) and in %s", endOfData),
				"%s: limits of logins are not asked for where users send", s))
		}
		if f.Policyd.text("limit-count-at") == "end-of-data" && f.asksAt(s, checks.LimitName) && !f.asksIn(s, endOfData) {
			found = append(found, failf(fmt.Sprintf("add check_policy_service { …, policy_context=limit } to %s, or set limit-count-at = \"rcpt\"", endOfData),
				"%s: limit-count-at is end-of-data, and Postfix does not ask there: no recipient counts", s))
		}
	}
	return orOK(found, "limits are asked for where they count")
}

// asksUnpermitted reports whether a service asks for a check before anything permits
// the client.
func (f *Facts) asksUnpermitted(s *Service, name string) bool {
	return slices.ContainsFunc(f.Hooks, func(h Hook) bool {
		return h.Service == s && slices.Contains(f.asks(h), name) && tooLate(h.List, name) == "" && firstOf(h.Before, append(slices.Clone(permits), ends...)) == ""
	})
}

// asksIn reports whether a list of a service asks for the limit check.
func (f *Facts) asksIn(s *Service, list string) bool {
	return slices.ContainsFunc(f.Hooks, func(h Hook) bool {
		return h.Service == s && h.List == list && slices.Contains(f.asks(h), checks.LimitName)
	})
}
