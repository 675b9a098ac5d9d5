package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// checkActions looks at what Postfix does while a daemon is away.
func checkActions(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	var found []Finding
	shadow := f.Policyd.list("shadow")
	onlyWatched := slices.Contains(shadow, "all") || slices.Contains(shadow, ownershipWord) // refuses nothing even when it runs
	passes := false                                                                         // what users send, while policyd is away
	for _, h := range f.Hooks {
		action := strings.ToUpper(first(strings.Fields(h.Default)))
		opens := slices.Contains([]string{"DUNNO", "OK", "PERMIT", "INFO", "WARN", "PREPEND"}, action)
		asks := f.asks(h)
		owned := slices.Contains(asks, ownershipWord) && h.Service.takesLogins() && !f.Policyd.shadows(ownershipWord)
		passes = passes || opens && slices.Contains(asks, ownershipWord) && h.Service.takesLogins()
		switch {
		case owned && opens && !onlyWatched:
			found = appendNew(found, failf("take default_action out of this hook (and smtpd_policy_service_default_action out of main.cf), so that Postfix defers (451)",
				"%s of %s: default_action is %s: while postern-policyd is away, users send as anyone", h.List, h.Service, h.Default))
		case owned && !opens && becomes(action) != deferred:
			found = appendNew(found, warnf("take default_action out of this hook (and smtpd_policy_service_default_action out of main.cf), so that Postfix defers (451)",
				"%s of %s: default_action is %q: while postern-policyd is away, users' mail is %s", h.List, h.Service, h.Default, becomes(action)))
		case !slices.Contains(asks, ownershipWord) && !opens && h.Service.isInbound() && slices.ContainsFunc(asks, isOfStrangers):
			found = appendNew(found, warnf("write check_policy_service { "+h.Endpoint+", …, default_action=DUNNO }",
				"%s of %s: default_action is %q: while postern-policyd is away, all mail from the internet is %s", h.List, h.Service, h.Default, becomes(action)))
		}
	}
	unsigned := false // users' mail leaves while milterd is away
	lost := false     // or is refused or held
	for _, m := range f.Milters {
		if m.Ours != nil && m.Ignored != "" {
			found = appendNew(found, warnf("correct it; the attributes are "+strings.Join(milterAttributes, ", "),
				"%s: Postfix ignores %q of %s in %s: it is no attribute", m.where(), m.Ignored, m.Endpoint, m.list()))
		}
		accepts := strings.EqualFold(m.Default, "accept")
		switch {
		case m.Ours == nil:
		case m.Service != nil && !m.Service.isInbound():
			if what := outcomes[strings.ToLower(m.Default)]; what != "" && m.Service.takesLogins() {
				lost = true
				found = appendNew(found, warnf(tempfailFix(m), "%s: the default action of %s is %s: while postern-milterd is away, users' mail is %s", m.where(), m.Endpoint, m.Default, what))
			}
			if !accepts || !m.Service.takesLogins() {
				continue
			}
			unsigned = true
			if f.Milterd.text("from-ownership") == "enforce" && !f.Milterd.shadows("all") {
				found = appendNew(found, warnf(tempfailFix(m),
					"%s: the default action of %s is %s: while postern-milterd is away, users may write any From", m.where(), m.Endpoint, m.Default))
			}
		case !accepts:
			found = appendNew(found, warnf("write { "+m.Endpoint+", default_action=accept }",
				"%s: the default action of %s is %s: while postern-milterd is away, this mail is %s", m.where(), m.Endpoint, m.Default, cmp.Or(outcomes[strings.ToLower(m.Default)], "not taken")))
		}
	}
	if lost {
		return found
	}
	switch {
	case unsigned && passes:
		return orOK(found, "all mail passes while a daemon is away (default_action, milter_default_action)")
	case unsigned:
		return orOK(found, "all mail passes while postern-milterd is away, that of users without a signature (default_action, milter_default_action); while postern-policyd is, users' mail waits")
	case passes:
		return orOK(found, "users' mail waits while postern-milterd is away; all other mail passes, and all while postern-policyd is")
	}
	return orOK(found, "users' mail waits and the internet's passes while a daemon is away")
}

// deferred is what becomes of mail that Postfix asks its client to send again.
const deferred = "deferred"

// becomes returns what becomes of mail by an action, in capitals, that does not let it pass.
func becomes(action string) string {
	switch {
	case action == "REJECT" || strings.HasPrefix(action, "5"):
		return "refused for good"
	case action == "DISCARD":
		return "thrown away"
	case action == "HOLD":
		return "held until someone releases it"
	}
	return deferred
}

// outcomes are what becomes of mail that no milter judges, where it neither passes nor waits.
var outcomes = map[string]string{
	"reject":     "refused for good, and not tried again",
	"quarantine": "taken as it is, without a signature or a verdict, and lies in the hold queue until someone releases it (postsuper -H)",
}

// tempfailFix says how a milter gets to be waited for.
func tempfailFix(m AttachedMilter) string {
	if strings.EqualFold(m.Service.Value("milter_default_action"), m.Default) {
		return fmt.Sprintf("postconf -P '%s/milter_default_action=tempfail' && postfix reload, so that Postfix defers (451)", m.Service)
	}
	return "take its default_action out of smtpd_milters, so that Postfix defers (451)"
}
