package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/setup"
	"github.com/postern-mail/postern/policy/checks"
)

// checkTwice finds programs that do the same work as ours.
func checkTwice(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	var found []Finding
	for _, h := range f.Foreign {
		p, ok := peerAt(h.Endpoint)
		switch {
		case ok && p.name == iRedAPD:
			found = appendNew(found, f.besideIRedAPD(h)...)
		case ok && p.can(doesGreylist) && f.greylists():
			found = appendNew(found, failf(fmt.Sprintf("take check_policy_service %s out of %s; its entries can be kept: postern greylist import", h.Endpoint, h.List),
				"%s greylists too: each new sender waits twice", p.name))
		case ok && p.can(doesSPF) && f.verifies() && !f.Milterd.shadows("spf"):
			found = appendNew(found, warnf(fmt.Sprintf("take check_policy_service %s out of %s", h.Endpoint, h.List),
				"%s checks SPF too, and may refuse what DMARC would let pass", p.name))
		}
	}
	for _, m := range f.Milters {
		if p, ok := peerAt(m.Endpoint); ok && m.Ours == nil {
			found = appendNew(found, f.secondMilter(m, p)...)
		}
	}
	found = append(found, f.besideAmavis()...)
	found = append(found, f.listedTwice()...)
	return orOK(found, "no other program signs, greylists or asks the same lists")
}

// besideIRedAPD judges a hook that leads to iRedAPD. It does other work too, and
// greylists at RCPT only.
func (f *Facts) besideIRedAPD(h Hook) []Finding {
	theirs := iredapd{f.Options.paths}
	if !f.greylists() || h.List == "smtpd_end_of_data_restrictions" || !theirs.greylists() {
		return nil
	}
	return []Finding{warnf(fmt.Sprintf("take greylisting out of plugins in %s, and restart iRedAPD", theirs.iredapd),
		"%s greylists too, at %s: each new sender may wait twice", iRedAPD, h.Endpoint)}
}

// besideAmavis finds out that amavisd may sign what a socket of ours has signed before: it
// does so for mail that its policy banks call originating.
func (f *Facts) besideAmavis() []Finding {
	twice := slices.ContainsFunc(f.Milters, func(m AttachedMilter) bool {
		return m.Ours != nil && m.Ours.Role != roleVerify && (setup.IsAmavis(f.valueAt(m.Service, "content_filter")) || setup.IsAmavis(f.valueAt(m.Service, "smtpd_proxy_filter")))
	})
	if !twice || f.Milterd.text("dkim-keys") == "" && f.Milterd.text("dkim-key-table") == "" || !f.hasKeys() || !setup.AmavisSigns(f.Options.paths.amavis) {
		return nil
	}
	return []Finding{warnf("write $enable_dkim_signing = 0; into /etc/amavis/conf.d/50-user, and restart amavis, or run postern setup --apply --signer amavis",
		"amavis has a key and may sign too: mail that postern-milterd has signed is then signed twice")}
}

// valueAt returns a parameter for the mail of a service, or for that of sendmail(1) if s is
// nil.
func (f *Facts) valueAt(s *Service, name string) string {
	if s == nil {
		s = f.Postfix.service("pickup")
	}
	if s == nil {
		return f.Postfix.Params[name]
	}
	return s.Value(name)
}

// secondMilter judges a milter of another program that mail passes beside ours.
func (f *Facts) secondMilter(m AttachedMilter, p peer) []Finding {
	var found []Finding
	list := m.list()
	isRspamd, theirs := p.name == "rspamd", rspamd{f.Options.paths}
	folder := f.Options.paths.rspamd
	if p.can(doesSign) && f.signsBeside(m) && (!isRspamd || theirs.signs()) {
		fix := fmt.Sprintf("take %s out of %s", m.Endpoint, list)
		if isRspamd {
			fix = fmt.Sprintf("write enabled = false; into %s/local.d/dkim_signing.conf, or let rspamd sign and leave postern-milterd's sign socket out", folder)
		}
		found = append(found, failf(fix, "%s signs too: mail of %s is signed twice", p.name, list))
	}
	if p.can(doesVerify) && !isRspamd && f.verifiesBeside(m) && !(p.can(doesSign) && f.signsBeside(m)) {
		found = append(found, warnf(fmt.Sprintf("take %s out of %s", m.Endpoint, list), "%s verifies too: mail gets two verdicts", p.name))
	}
	if p.can(doesGreylist) && f.greylists() && (!isRspamd || theirs.greylists()) {
		fix := fmt.Sprintf("take %s out of %s", m.Endpoint, list)
		if isRspamd {
			fix = fmt.Sprintf("write enabled = false; into %s/local.d/greylist.conf, or take greylist out of checks in policyd.toml", folder)
		}
		found = append(found, warnf(fix, "%s greylists too: each new sender may wait twice", p.name))
	}
	return found
}

// greylists reports whether policyd delays mail.
func (f *Facts) greylists() bool {
	return f.attached(checks.GreylistName) && !f.Policyd.shadows(checks.GreylistName)
}

// signsBeside reports whether a socket of ours signs the mail that passes m.
func (f *Facts) signsBeside(m AttachedMilter) bool {
	if f.Milterd.text("dkim-keys") == "" && f.Milterd.text("dkim-key-table") == "" {
		return false
	}
	return slices.ContainsFunc(f.Milters, func(o AttachedMilter) bool {
		return o.Service == m.Service && o.Ours != nil && o.Ours.Role != roleVerify
	})
}

func (f *Facts) verifiesBeside(m AttachedMilter) bool {
	return !f.Milterd.shadows("all") && slices.ContainsFunc(f.Milters, func(o AttachedMilter) bool {
		return o.Service == m.Service && o.Ours != nil && o.Ours.Role != roleSign
	})
}

// verifies reports whether milterd verifies any mail.
func (f *Facts) verifies() bool {
	return slices.ContainsFunc(f.Milters, func(m AttachedMilter) bool { return m.Ours != nil && m.Ours.Role != roleSign })
}

// listedTwice finds lists that both Postfix and policyd ask, unless one of them only
// watches: it is the other that decides.
func (f *Facts) listedTwice() []Finding {
	if !f.attached(checks.DNSBLName) || f.Policyd.shadows(checks.DNSBLName) {
		return nil
	}
	var found []Finding
	for _, s := range f.Postfix.smtpds() {
		for _, list := range restrictionLists {
			words := s.restrictions(list)
			for i, word := range words[:max(0, len(words)-1)] {
				onlyLogs := i > 0 && words[i-1] == "warn_if_reject"
				if onlyLogs || !strings.HasPrefix(word, "reject_rbl_") && !strings.HasPrefix(word, "reject_rhsbl_") {
					continue
				}
				if zone := zoneName(words[i+1]); f.asksZone(zone) {
					found = appendNew(found, warnf(fmt.Sprintf("take %s %s out of %s, or the list out of dnsbl and dbl in policyd.toml", word, words[i+1], list),
						"%s asks %s itself: postern-policyd asks it too", list, zone))
				}
			}
		}
	}
	return found
}

// zoneName returns the zone of a list, without a key, a filter and a weight.
func zoneName(site string) string {
	zone := strings.ToLower(strings.FieldsFunc(site+"=", func(r rune) bool { return r == '=' || r == '*' })[0])
	if key, service, ok := strings.Cut(zone, "."); ok && strings.HasSuffix(service, ".dq.spamhaus.net") && len(key) > 20 {
		return strings.TrimSuffix(service, ".dq.spamhaus.net") + ".spamhaus.org"
	}
	return zone
}

// asksZone reports whether policyd asks a list.
func (f *Facts) asksZone(zone string) bool {
	return slices.ContainsFunc(slices.Concat(f.Policyd.list("dnsbl"), f.Policyd.list("dbl")), func(site string) bool { return zoneName(site) == zone })
}
