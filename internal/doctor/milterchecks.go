package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/policy/checks"
)

// checkTwice finds programs that do once more what ours do.
func checkTwice(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	var found []Finding
	for _, h := range f.Foreign {
		p, ok := peerAt(h.Endpoint)
		switch {
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
	found = append(found, f.listedTwice()...)
	return orOK(found, "no other program signs, greylists or asks the same lists")
}

// secondMilter judges a milter of others that mail goes through beside ours.
func (f *Facts) secondMilter(m AttachedMilter, p peer) []Finding {
	var found []Finding
	list := "smtpd_milters"
	if m.Service == nil {
		list = "non_smtpd_milters"
	}
	rspamd := p.name == "rspamd"
	folder := f.Options.paths.rspamd
	if p.can(doesSign) && f.signsBeside(m) && !(rspamd && rspamdModuleOff(folder, "dkim_signing")) {
		fix := fmt.Sprintf("take %s out of %s", m.Endpoint, list)
		if rspamd {
			fix = fmt.Sprintf("write enabled = false; into %s/local.d/dkim_signing.conf, or let rspamd sign and leave postern-milterd's sign socket out", folder)
		}
		found = append(found, failf(fix, "%s signs too: mail of %s is signed twice", p.name, list))
	}
	if p.can(doesVerify) && !rspamd && f.verifiesBeside(m) && !p.can(doesSign) {
		found = append(found, warnf(fmt.Sprintf("take %s out of %s", m.Endpoint, list), "%s verifies too: mail gets two verdicts", p.name))
	}
	if p.can(doesVerify) && p.can(doesSign) && !rspamd && f.verifiesBeside(m) && !f.signsBeside(m) {
		found = append(found, warnf(fmt.Sprintf("take %s out of %s", m.Endpoint, list), "%s verifies too: mail gets two verdicts", p.name))
	}
	if p.can(doesGreylist) && f.greylists() && !(rspamd && rspamdModuleOff(folder, "greylist")) {
		fix := fmt.Sprintf("take %s out of %s", m.Endpoint, list)
		if rspamd {
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

// signsBeside reports whether a socket of ours signs what goes through m.
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

// listedTwice finds lists that Postfix asks itself and policyd too.
func (f *Facts) listedTwice() []Finding {
	if !f.attached(checks.DNSBLName) {
		return nil
	}
	var found []Finding
	for _, s := range f.Postfix.smtpds() {
		for _, list := range restrictionLists {
			words := postconf.Split(s.Value(list))
			for i, word := range words[:max(0, len(words)-1)] {
				if !strings.HasPrefix(word, "reject_rbl_") && !strings.HasPrefix(word, "reject_rhsbl_") {
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

// zoneName is the name of a list, without a key, a filter and a weight.
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

// checkSigning looks at whose mail comes in at which socket.
func checkSigning(_ context.Context, f *Facts) []Finding {
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
	if !f.signs() {
		return orOK(found, "no mail is signed: no socket that signs is named in Postfix")
	}
	for _, s := range f.Postfix.smtpds() {
		if s.isSubmission() && f.roleAt(s) == "" {
			found = append(found, failf(fmt.Sprintf("postconf -P '%s/smtpd_milters=%s'", s, f.signSocket()),
				"%s: users' mail is not signed: %s", s, whyNoMilter(s)))
		}
	}
	if f.roleAt(nil) == "" {
		found = append(found, warnf(fmt.Sprintf("postconf -e 'non_smtpd_milters = { %s, default_action=accept }'", f.signSocket()),
			"mail of sendmail(1) and cron is not signed: non_smtpd_milters is %q", f.Postfix.Params["non_smtpd_milters"]))
	}
	return orOK(found, "what users and this machine send is signed, what the internet sends is not")
}

// hasKeys reports whether milterd would sign anything.
func (f *Facts) hasKeys() bool {
	keys, _ := f.keys()
	return len(keys) > 0
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

// roleAt is what milterd does with mail of a service, nil for mail that does not
// come over SMTP; "" is nothing.
func (f *Facts) roleAt(s *Service) string {
	for _, m := range f.Milters {
		if m.Service == s && m.Ours != nil {
			return m.Ours.Role
		}
	}
	return ""
}

// signSocket is the socket to name for our own mail.
func (f *Facts) signSocket() string {
	for _, m := range f.Milters {
		if m.Ours != nil && m.Ours.Role == roleSign {
			return m.Endpoint
		}
	}
	for _, l := range f.milterSockets {
		if l.Role != roleVerify {
			return l.String()
		}
	}
	return "inet:127.0.0.1:10047"
}

func (f *Facts) verifySocket() string {
	for _, l := range f.milterSockets {
		if l.Role == roleVerify {
			return l.String()
		}
	}
	return "inet:127.0.0.1:10046"
}

// wrongSocket judges one socket of milterd where it is named.
func (f *Facts) wrongSocket(m AttachedMilter) []Finding {
	s, role := m.Service, m.Ours.Role
	switch {
	case s == nil && role == roleVerify:
		return []Finding{failf(fmt.Sprintf("postconf -e 'non_smtpd_milters = { %s, default_action=accept }'", f.signSocket()),
			"non_smtpd_milters names %s, which verifies: mail of this machine is judged like a stranger's, and not signed", m.Endpoint)}
	case s == nil && role == roleSession && !f.localIsOurs():
		return []Finding{failf("add listen-sign to milterd.toml, and name that socket in non_smtpd_milters",
			"non_smtpd_milters names %s, where the session decides: mail of this machine has no login, and is judged like a stranger's", m.Endpoint)}
	case s == nil:
		return nil
	case role == roleSign && s.isInbound():
		return []Finding{failf(fmt.Sprintf("name %s there; the socket that signs is for submission (-o smtpd_milters) and non_smtpd_milters", f.verifySocket()),
			"%s: mail from the internet comes in at %s, which signs all of it", s, m.Endpoint)}
	case role == roleSign && s.isLoopback() && f.filtered():
		return []Finding{failf(fmt.Sprintf("postconf -P '%s/smtpd_milters=' (mail has been through milters before the filter)", s),
			"%s: what a content filter hands back comes in at %s, which signs it, the internet's mail too", s, m.Endpoint)}
	case role == roleSession && f.filtered() && f.trustsLoopback():
		return []Finding{failf("take loopback addresses out of internal-networks in milterd.toml",
			"%s: internal-networks holds this machine's addresses, from which a content filter hands the internet's mail back: it is signed at %s", s, m.Endpoint)}
	case role == roleVerify && s.isSubmission() && !f.signs() && !f.hasKeys():
		return []Finding{failf(fmt.Sprintf("give it the other milters alone: postconf -P '%s/smtpd_milters=…'", s),
			"%s: users' mail comes in at %s, which judges it like a stranger's", s, m.Endpoint)}
	case role == roleVerify && s.isSubmission():
		return []Finding{failf(fmt.Sprintf("postconf -P '%s/smtpd_milters=%s'", s, f.signSocket()),
			"%s: users' mail comes in at %s, which verifies and never signs", s, m.Endpoint)}
	case role == roleSession && s.isSubmission() && !s.takesLogins() && !f.isOriginating(s) && !f.trustsLoopback():
		return []Finding{failf(fmt.Sprintf("postconf -P '%s/milter_macro_daemon_name=ORIGINATING'", s),
			"%s: no one logs in here, and milter_macro_daemon_name is %s: mail is judged like a stranger's", s, s.Value("milter_macro_daemon_name"))}
	}
	return nil
}

// localIsOurs reports whether mail of sendmail(1) is ours where the session decides: it
// comes from 127.0.0.1, and under the name of main.cf.
func (f *Facts) localIsOurs() bool {
	return f.trustsLoopback() || slices.Contains(f.Milterd.list("originating"), f.Postfix.Params["milter_macro_daemon_name"])
}

// trustsLoopback reports whether what comes from this machine is ours for its address.
func (f *Facts) trustsLoopback() bool {
	loopback := netip.MustParseAddr("127.0.0.1")
	return slices.ContainsFunc(f.Milterd.list("internal-networks"), func(network string) bool {
		if p, err := netip.ParsePrefix(network); err == nil {
			return p.Contains(loopback)
		}
		addr, err := netip.ParseAddr(network)
		return err == nil && addr == loopback
	})
}

// filtered reports whether mail goes through a content filter.
func (f *Facts) filtered() bool {
	return slices.ContainsFunc(f.Postfix.smtpds(), func(s *Service) bool {
		return s.Value("content_filter") != "" || s.Value("smtpd_proxy_filter") != ""
	})
}

// isOriginating reports whether the name of a service makes its mail ours.
func (f *Facts) isOriginating(s *Service) bool {
	return slices.Contains(f.Milterd.list("originating"), s.Value("milter_macro_daemon_name"))
}

// macroLists are the parameters that say which macros a milter gets, and those that
// milterd needs.
var macroLists = []struct {
	name  string
	needs []string
}{
	{"milter_connect_macros", []string{"j", "{daemon_name}"}},
	{"milter_mail_macros", []string{"{auth_authen}", "{auth_type}"}},
	{"milter_rcpt_macros", []string{"i"}},
	{"milter_data_macros", []string{"i"}},
	{"milter_end_of_header_macros", []string{"i"}},
	{"milter_end_of_data_macros", []string{"i"}},
}

// milterProtocol is the version that Postfix speaks unless it is told not to.
const milterProtocol = 6

// checkMacros looks at what Postfix tells milters.
func checkMacros(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil || !f.usesMilterd() {
		return nil
	}
	var found []Finding
	old := false
	if version, err := strconv.Atoi(f.Postfix.Params["milter_protocol"]); err == nil && version < milterProtocol {
		old = true
		found = append(found, warnf("postconf -X milter_protocol", "milter_protocol is %d, left over from older guides: what needs protocol 6 does not work", version))
	}
	for _, s := range f.Postfix.smtpds() {
		role := f.roleAt(s)
		if role == "" {
			continue
		}
		found = appendNew(found, macroFindings(s, old, role)...)
		if role == roleSession && s.isInbound() && f.isOriginating(s) {
			found = appendNew(found, failf("postconf -X milter_macro_daemon_name, and set it in master.cf for submission only",
				"%s: milter_macro_daemon_name is %s: mail from the internet counts as ours and is signed", s, s.Value("milter_macro_daemon_name")))
		}
	}
	return orOK(found, "milter protocol 6 with all macros")
}

// macroFindings judges the macro lists of a service.
func macroFindings(s *Service, old bool, role string) []Finding {
	var found []Finding
	for _, list := range macroLists {
		if !s.postfix.Set[list.name] && !s.overrides(list.name) {
			continue
		}
		has := postconf.Split(s.Value(list.name))
		for i, m := range has {
			if len(m) > 1 && m[0] != '{' {
				has[i] = "{" + m + "}"
			}
		}
		missing := slices.DeleteFunc(slices.Clone(list.needs), func(m string) bool { return slices.Contains(has, m) })
		switch fix := "postconf -X " + list.name + " (or take it out of master.cf)"; {
		case len(missing) == 0:
		case old && role == roleSession:
			found = append(found, failf(fix, "%s leaves out %s, by which postern-milterd knows whose mail it is: users' mail is not signed", list.name, strings.Join(missing, ", ")))
		default:
			found = append(found, warnf(fix, "%s leaves out %s: postern-milterd asks for what it needs, other milters go without", list.name, strings.Join(missing, ", ")))
		}
	}
	return found
}

// checkPostscreen looks at what postscreen does that policyd does too.
func checkPostscreen(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	var screen *Service
	if screen = f.Postfix.service("postscreen"); screen == nil {
		return []Finding{okf("postscreen is not used")}
	}
	var found []Finding
	if f.attached(checks.DNSBLName) && screen.Value("postscreen_dnsbl_action") != "ignore" {
		for _, site := range postconf.Split(screen.Value("postscreen_dnsbl_sites")) {
			if zone := zoneName(site); f.asksZone(zone) {
				found = append(found, warnf(fmt.Sprintf("take %s out of postscreen_dnsbl_sites, or out of dnsbl in policyd.toml (keep dbl, which postscreen cannot ask)", zone),
					"postscreen asks %s already: what it lists never reaches postern-policyd, and the rest is asked twice", zone))
			}
		}
	}
	if f.greylists() {
		for _, name := range []string{"postscreen_pipelining_enable", "postscreen_non_smtp_command_enable", "postscreen_bare_newline_enable"} {
			if screen.Value(name) == "yes" {
				found = append(found, warnf("postconf -e "+name+"=no, or take greylist out of checks in policyd.toml",
					"%s: postscreen's tests after the 220 greeting turn every new client away once, and the greylist does so again", name))
			}
		}
	}
	return orOK(found, "postscreen asks and delays nothing that postern-policyd does")
}

// checkFilters looks at hooks and milters around content filters.
func checkFilters(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	var found []Finding
	for _, s := range f.Postfix.smtpds() {
		if s.Value("smtpd_proxy_filter") == "" {
			continue
		}
		if role := f.roleAt(s); role != "" {
			found = append(found, failf(fmt.Sprintf("name the milter at the service that the filter hands mail back to, or use content_filter; postconf -P '%s/smtpd_milters='", s),
				"%s: smtpd_proxy_filter is set: a milter in front of it sees no header and no body, so that nothing is verified, signed or held", s))
		}
		found = append(found, f.unavailable(s)...)
	}
	return orOK(found, "no smtpd_proxy_filter is in the way")
}

// unavailable names the actions that need a queue file, which a service in front of
// a proxy filter has not.
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

// checkBounds compares bounds of both sides.
func checkBounds(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil || len(f.Hooks) == 0 && !f.usesMilterd() {
		return nil
	}
	var found []Finding
	limit, _ := strconv.Atoi(f.Postfix.Params["default_process_limit"])
	for _, d := range []*Daemon{f.Policyd, f.Milterd} {
		if most := d.number("max-connections"); most > 0 && limit > most {
			found = append(found, warnf(fmt.Sprintf("set max-connections = %d for %s, or a smaller default_process_limit", 2*limit, d.Name),
				"Postfix may have %d smtpd processes (default_process_limit), and %s takes %d connections", limit, d.Name, most))
		}
	}
	deadline, wait := seconds(f.Policyd.text("deadline")), seconds(f.Postfix.Params["smtpd_policy_service_timeout"])
	if len(f.Hooks) > 0 && deadline > 0 && wait > 0 && wait <= deadline {
		found = append(found, failf("postconf -X smtpd_policy_service_timeout (100s is the default), or set a shorter deadline in policyd.toml",
			"Postfix waits %gs for an answer (smtpd_policy_service_timeout), and postern-policyd may take %gs (deadline)", wait, deadline))
	}
	verdict := seconds(f.Milterd.text("verify-deadline"))
	for _, name := range []string{"milter_command_timeout", "milter_content_timeout"} {
		if wait := seconds(f.Postfix.Params[name]); f.verifies() && verdict > 0 && wait > 0 && wait <= verdict {
			found = append(found, failf("postconf -X "+name+", or set a shorter verify-deadline in milterd.toml",
				"Postfix waits %gs for a milter (%s), and postern-milterd may take %gs (verify-deadline)", wait, name, verdict))
		}
	}
	return orOK(found, "connections and times fit together")
}

// seconds reads a time as Postfix and the daemons spell it, 0 when it is none.
func seconds(text string) float64 {
	units := map[string]float64{"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
	at := strings.LastIndexAny(text, "0123456789") + 1
	n, err := strconv.ParseFloat(text[:at], 64)
	unit, known := units[text[at:]]
	if err != nil || !known {
		return 0
	}
	return n * unit
}
