package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// checkSigning looks at which kind of mail comes in at which socket of milterd.
func checkSigning(ctx context.Context, f *Facts) []Finding {
	if f.Postfix == nil || !f.usesMilterd() {
		return nil
	}
	var found []Finding
	for _, m := range f.Milters {
		if m.Ours != nil {
			found = appendNew(found, f.wrongSocket(m)...)
		}
	}
	if !f.signs() && f.hasKeys() && len(found) == 0 {
		return []Finding{failf(fmt.Sprintf("name %s for submission (-o smtpd_milters) and in non_smtpd_milters", f.signSocket()), "there are keys, and no socket that signs is named in Postfix: no mail is signed")}
	}
	found = append(found, f.unverified()...)
	if !f.signs() {
		return orOK(found, "no mail is signed: no socket that signs is named in Postfix")
	}
	for _, s := range f.Postfix.smtpds() {
		switch {
		case !s.isSubmission() || f.roleAt(s) != "":
		case s.Value("smtpd_proxy_filter") != "":
			found = append(found, warnf(fmt.Sprintf("use a content_filter in its place, or none there: postconf -P '%s/smtpd_proxy_filter='", s),
				"%s: users' mail is not signed: smtpd_proxy_filter is set, and a milter in front of it sees no header and no body", s))
		default:
			found = append(found, failf(f.giveToSigner(s), "%s: users' mail is not signed: %s", s, whyNoMilter(s)))
		}
	}
	if f.roleAt(nil) == "" {
		found = append(found, warnf(f.giveToSigner(nil),
			"mail of sendmail(1) and cron is not signed: non_smtpd_milters is %q%s", f.Postfix.localValue("non_smtpd_milters"), f.Postfix.ofLocalCleanup()))
	}
	found = append(found, f.changedLater(ctx)...)
	return orOK(found, "what users and this machine send is signed, what the internet sends is not")
}

// unverified finds out that no service for mail from the internet asks milterd, although it
// listens to verify. A service whose own list is empty, or that has a proxy filter, asks none
// on purpose; at another one a program may verify that Postern runs beside. Where a list
// names a socket that looks like ours, other checks report it.
func (f *Facts) unverified() []Finding {
	var lacks []string
	for _, s := range f.Postfix.smtpds() {
		switch {
		case !s.isInbound() || s.overrides("smtpd_milters") && len(s.milters()) == 0 || s.Value("smtpd_proxy_filter") != "" || noMilters(s):
		case slices.ContainsFunc(f.Milters, func(m AttachedMilter) bool { return m.Service == s && f.missesMilterd(m) }):
			return nil
		case f.roleAt(s) != "":
			return nil
		case f.verifiedByAnother(s):
		default:
			lacks = append(lacks, s.String())
		}
	}
	listens := slices.ContainsFunc(f.milterSockets, func(l Listener) bool { return l.Role != roleSign })
	if len(lacks) == 0 || !listens {
		return nil
	}
	return []Finding{warnf(fmt.Sprintf("run postern setup, or name { %s, default_action=accept } in smtpd_milters of main.cf; if no one is to verify it, postconf -P '%s/smtpd_milters='", f.verifySocket(), lacks[0]),
		"mail from the internet is not verified: smtpd_milters of %s does not name postern-milterd, which listens for it", strings.Join(lacks, ", "))}
}

// verifiedByAnother reports whether a service sends its mail to another program that may
// verify it.
func (f *Facts) verifiedByAnother(s *Service) bool {
	return slices.ContainsFunc(f.Milters, func(m AttachedMilter) bool {
		p, known := peerAt(m.Endpoint)
		return m.Service == s && m.Ours == nil && known && p.can(doesVerify)
	})
}

// hasKeys reports whether milterd has keys to sign with.
func (f *Facts) hasKeys() bool {
	keys, _ := f.keys()
	return len(keys) > 0 || f.tables != nil
}

// giveToSigner returns how to have the mail of a service, or local mail if s is nil, go to
// the socket that signs. Other milters of the list stay.
func (f *Facts) giveToSigner(s *Service) string {
	var others []string
	for _, m := range f.Milters {
		if m.Service == s && m.Ours == nil {
			others = append(others, m.Endpoint)
		}
	}
	switch beside := strings.Join(others, ", "); {
	case s != nil && noMilters(s):
		return fmt.Sprintf("take no_milters out of receive_override_options of %s, and name %s in its smtpd_milters", s, f.signSocket())
	case s == nil && f.Postfix.ofLocalCleanup() != "":
		return fmt.Sprintf("name %s in non_smtpd_milters of %s: run postern setup, or postconf -PX '%[2]s/non_smtpd_milters'", f.signSocket(), f.Postfix.localCleanup())
	case s == nil && beside == "":
		return fmt.Sprintf("postconf -e 'non_smtpd_milters = { %s, default_action=accept }'", f.signSocket())
	case s == nil:
		return fmt.Sprintf("name { %s, default_action=accept } in non_smtpd_milters, beside %s", f.signSocket(), beside)
	case beside == "":
		return fmt.Sprintf("postconf -P '%s/smtpd_milters=%s'", s, f.signSocket())
	default:
		return fmt.Sprintf("give %s a smtpd_milters of its own (postconf -P) with %s, beside %s", s, f.signSocket(), beside)
	}
}

func whyNoMilter(s *Service) string {
	if noMilters(s) {
		return "receive_override_options there has no_milters; take it out"
	}
	return fmt.Sprintf("smtpd_milters is %q there", s.Value("smtpd_milters"))
}

// signs reports whether any mail comes in at a socket that signs.
func (f *Facts) signs() bool {
	return slices.ContainsFunc(f.Milters, func(m AttachedMilter) bool { return m.Ours != nil && m.Ours.Role != roleVerify })
}

// roleAt returns what milterd does with the mail of a service, or of local mail if s is
// nil. "" is nothing.
func (f *Facts) roleAt(s *Service) string {
	for _, m := range f.Milters {
		if m.Service == s && m.Ours != nil {
			return m.Ours.Role
		}
	}
	return ""
}

// signSocket returns the socket that our own mail should go to.
func (f *Facts) signSocket() string {
	for _, m := range f.Milters {
		if m.Ours != nil && m.Ours.Role == roleSign {
			return m.Endpoint
		}
	}
	for _, l := range f.milterSockets {
		if l.Role != roleVerify {
			return f.Postfix.spell(l.place)
		}
	}
	return "inet:127.0.0.1:10047"
}

// verifySocket returns the socket that mail from the internet should go to.
func (f *Facts) verifySocket() string {
	for _, role := range []string{roleVerify, roleSession} {
		for _, l := range f.milterSockets {
			if l.Role == role {
				return f.Postfix.spell(l.place)
			}
		}
	}
	return "inet:127.0.0.1:10046"
}

// wrongSocket judges one entry of a milter list that leads to milterd.
func (f *Facts) wrongSocket(m AttachedMilter) []Finding {
	s, role := m.Service, m.Ours.Role
	switch {
	case s == nil && role == roleVerify:
		return []Finding{failf(f.giveToSigner(nil),
			"non_smtpd_milters names %s, which verifies: mail of this machine is judged like a stranger's, and not signed", m.Endpoint)}
	case s == nil && role == roleSession && !f.localIsOurs():
		return []Finding{failf("add listen-sign to milterd.toml, and name that socket in non_smtpd_milters",
			"non_smtpd_milters names %s, where the session decides: mail of this machine has no login, and is judged like a stranger's", m.Endpoint)}
	case s == nil:
		return nil
	case role == roleSign && s.isInbound():
		return []Finding{failf(fmt.Sprintf("name %s there; the socket that signs is for submission (-o smtpd_milters) and non_smtpd_milters", f.verifySocket()),
			"%s: mail from the internet comes in at %s, which signs all of it", s, m.Endpoint)}
	case role == roleSign && s.isLoopback() && !s.takesLogins() && f.filtered() && s.Value("content_filter") == "": // with one, mail goes to the filter from there
		return []Finding{failf(fmt.Sprintf("postconf -P '%s/smtpd_milters=' (mail has been through milters before the filter)", s),
			"%s: what a content filter hands back comes in at %s, which signs it, the internet's mail too", s, m.Endpoint)}
	case role == roleSession && f.filtered() && f.trustsLoopback():
		return []Finding{failf("take loopback addresses out of internal-networks in milterd.toml",
			"%s: internal-networks holds this machine's addresses, from which a content filter hands the internet's mail back: it is signed at %s", s, m.Endpoint)}
	case role == roleVerify && s.isSubmission() && !f.signs() && !f.hasKeys():
		return []Finding{failf(fmt.Sprintf("give it the other milters alone: postconf -P '%s/smtpd_milters=…'", s),
			"%s: users' mail comes in at %s, which judges it like a stranger's", s, m.Endpoint)}
	case role == roleVerify && s.isSubmission():
		return []Finding{failf(f.giveToSigner(s), "%s: users' mail comes in at %s, which verifies and never signs", s, m.Endpoint)}
	case role == roleSession && s.isSubmission() && !s.takesLogins() && !f.isOriginating(s) && !f.trustsLoopback():
		return []Finding{failf(fmt.Sprintf("postconf -P '%s/milter_macro_daemon_name=ORIGINATING'", s),
			"%s: no one logs in here, and milter_macro_daemon_name is %s: mail is judged like a stranger's", s, s.Value("milter_macro_daemon_name"))}
	}
	return nil
}

// localIsOurs reports whether mail of sendmail(1) counts as ours at a socket where the
// session decides. Such mail comes from 127.0.0.1, with the daemon name of its cleanup service.
func (f *Facts) localIsOurs() bool {
	return f.trustsLoopback() || slices.Contains(f.Milterd.list("originating"), f.Postfix.localValue("milter_macro_daemon_name"))
}

// trustsLoopback reports whether mail from loopback addresses counts as ours.
func (f *Facts) trustsLoopback() bool {
	return within(netip.MustParseAddr("127.0.0.1"), networks(f.Milterd.list("internal-networks")))
}

// filtered reports whether mail goes through a content filter.
func (f *Facts) filtered() bool {
	return slices.ContainsFunc(f.Postfix.smtpds(), func(s *Service) bool {
		return s.Value("content_filter") != "" || s.Value("smtpd_proxy_filter") != ""
	})
}

// isOriginating reports whether the daemon name of a service makes its mail ours.
func (f *Facts) isOriginating(s *Service) bool {
	return slices.Contains(f.Milterd.list("originating"), s.Value("milter_macro_daemon_name"))
}
