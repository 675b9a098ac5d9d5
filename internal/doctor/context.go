package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/policy/checks"
)

// checkContext looks at the policy_context of the hooks.
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
		if h.Ignored != "" {
			found = appendNew(found, warnf("correct it; the attributes are "+strings.Join(policyAttributes, ", "),
				"%s of %s: Postfix ignores %q of check_policy_service %s: it is no attribute", h.List, h.Service, h.Ignored, h.Endpoint))
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
			continue // it reports nothing
		}
		// The hooks of other instances are not seen.
		if !f.attached(name) && f.Policyd.SettingsErr == nil && len(otherInstances(f.Postfix)) == 0 {
			found = append(found, warnf(fmt.Sprintf("%s, or take it out of checks in policyd.toml", f.toAsk(name)),
				"the check %s runs, and no hook of Postfix asks for it", name))
		}
	}
	if shadow := f.Policyd.list("shadow"); len(found) == 0 && len(shadow) > 0 {
		return []Finding{okf("every hook names checks that run; %s only watch (shadow)", strings.Join(shadow, ", "))}
	}
	return orOK(found, "every hook names checks that run")
}

// toAsk returns how to have Postfix ask for a check. Setup writes no hook for limits where no
// one logs in, because it cannot know whom they are about.
func (f *Facts) toAsk(name string) string {
	if name == checks.LimitName && !slices.ContainsFunc(f.Postfix.smtpds(), (*Service).takesLogins) {
		return "no one logs in here; name limit in the policy_context of the hook in smtpd_recipient_restrictions, for limits of clients"
	}
	return fmt.Sprintf("name %s in the policy_context of a hook (postern setup shows the line)", name)
}
