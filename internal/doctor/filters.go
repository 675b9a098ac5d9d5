package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/policy/checks"
)

// checkPostscreen finds what both postscreen and policyd do.
func checkPostscreen(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	var screen *Service
	if screen = f.Postfix.service("postscreen"); screen == nil {
		return []Finding{okf("postscreen is not used")}
	}
	var found []Finding
	// Which clients it refuses is a matter of weights and a threshold. While policyd only
	// watches, it is postscreen that decides.
	if f.attached(checks.DNSBLName) && !f.Policyd.shadows(checks.DNSBLName) && !strings.EqualFold(screen.Value("postscreen_dnsbl_action"), "ignore") {
		for _, site := range postconf.Split(screen.Value("postscreen_dnsbl_sites")) {
			if zone := zoneName(site); f.asksZone(zone) {
				found = appendNew(found, warnf(fmt.Sprintf("take %s out of postscreen_dnsbl_sites, or out of dnsbl in policyd.toml (keep dbl, which postscreen cannot ask)", zone),
					"postscreen asks %s already: clients that it refuses never reach postern-policyd, which asks about the others once more", zone))
			}
		}
	}
	if f.greylists() {
		for _, name := range []string{"postscreen_pipelining_enable", "postscreen_non_smtp_command_enable", "postscreen_bare_newline_enable"} {
			if screen.yes(name) {
				found = append(found, warnf("postconf -e "+name+"=no, or take greylist out of checks in policyd.toml",
					"%s: postscreen's tests after the 220 greeting turn every new client away once, and the greylist does so again", name))
			}
		}
	}
	return orOK(found, "postscreen asks and delays nothing that postern-policyd does")
}

// checkFilters looks at hooks and milters before and after content filters.
func checkFilters(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	var found []Finding
	inFront := false // a filter is in front of the internet's mail
	for _, s := range f.Postfix.smtpds() {
		if s.Value("smtpd_proxy_filter") == "" {
			continue
		}
		inFront = inFront || s.isInbound()
		if role := f.roleAt(s); role != "" {
			instead := "name the milter at the service that the filter hands mail back to, or use content_filter"
			if s.isInbound() {
				instead = "use content_filter in its place; behind smtpd_proxy_filter every client is this machine, and SPF and DMARC cannot be checked"
			}
			found = append(found, failf(fmt.Sprintf("%s; postconf -P '%s/smtpd_milters='", instead, s),
				"%s: smtpd_proxy_filter is set: a milter in front of it sees no header and no body, so that nothing is verified, signed or held", s))
		}
		found = append(found, f.unavailable(s)...)
	}
	if inFront {
		found = append(found, f.blind()...)
	}
	return orOK(found, "no smtpd_proxy_filter is in the way")
}

// blind finds services where the internet's mail comes back from a proxy filter and is
// verified: the client is this machine there, and the Received field of the real one could be
// written by any program here.
func (f *Facts) blind() (found []Finding) {
	for _, s := range f.Postfix.smtpds() {
		if role := f.roleAt(s); s.isLoopback() && !s.takesLogins() && s.Value("smtpd_authorized_xforward_hosts") != "" && (role == roleVerify || role == roleSession) {
			found = append(found, warnf("use content_filter in place of smtpd_proxy_filter, with the milter at the service in front",
				"%s: every client of what smtpd_proxy_filter hands back is this machine: SPF fails to see the real one, DMARC fails for mail without DKIM, and a forged mail is not marked", s))
		}
	}
	return found
}

// unavailable names the actions that need a queue file. A service in front of a proxy
// filter has none.
func (f *Facts) unavailable(s *Service) []Finding {
	var found []Finding
	holds := slices.ContainsFunc(f.Policyd.list("limit-action"), func(action string) bool { return action == "hold" || strings.HasSuffix(action, "=hold") })
	if holds && f.limits() && f.asksAt(s, checks.LimitName) {
		found = append(found, failf("set limit-action = [\"defer\"]", "%s: smtpd_proxy_filter is set: HOLD (limit-action) is unavailable there, and the mail passes", s))
	}
	if f.Policyd.text("greylist-header") == "true" && f.asksAt(s, checks.GreylistName) {
		found = append(found, warnf("set greylist-header = false", "%s: smtpd_proxy_filter is set: no header can be added there, and Postfix logs a warning for each mail that was delayed", s))
	}
	return found
}

func (f *Facts) asksAt(s *Service, name string) bool {
	return slices.ContainsFunc(f.Hooks, func(h Hook) bool { return h.Service == s && slices.Contains(f.asks(h), name) })
}
