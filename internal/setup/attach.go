// The hooks of the policy daemon in Postfix's lists of restrictions.

package setup

import (
	"regexp"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// restrictionLists are the parameters that may ask a policy service, in the order in
// which smtpd(8) evaluates them.
var restrictionLists = []string{
	"smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions", "smtpd_relay_restrictions",
	"smtpd_recipient_restrictions", "smtpd_data_restrictions", "smtpd_end_of_data_restrictions",
}

const (
	senderList    = "smtpd_sender_restrictions"
	relayList     = "smtpd_relay_restrictions"
	recipientList = "smtpd_recipient_restrictions"
	endOfData     = "smtpd_end_of_data_restrictions"
)

// inboundHook returns the hook for mail from the internet. While the daemon is away,
// mail passes.
func (p *planner) inboundHook() restriction { return p.strangersHook(p.inboundChecks()...) }

func (p *planner) strangersHook(names ...string) restriction {
	return restriction{name: "check_policy_service", arg: "{ " + p.Policy + ", " + policyContext(names) + ", default_action=DUNNO }"}
}

// policyContext returns the attribute that names checks.
func policyContext(names []string) string {
	if len(names) == 1 {
		return "policy_context=" + names[0]
	}
	return "{ policy_context = " + strings.Join(names, ", ") + " }"
}

// inboundChecks returns the checks of the hook for mail from the internet. The hook names
// none that does not run; without any there is no hook.
func (p *planner) inboundChecks() []string {
	return slices.DeleteFunc([]string{"dnsbl", "greylist"}, func(name string) bool {
		return name == "greylist" && (p.Greylister != ours || p.selective) || !p.runs(name)
	})
}

// asks reports whether an element asks our policy daemon.
func (p *planner) asks(r restriction) bool {
	return r.is("check_policy_service") && endpointOf(r.arg) == normal(p.Policy)
}

// asksAboutStrangers reports whether an element is a hook for mail from the internet.
func (p *planner) asksAboutStrangers(r restriction) bool {
	return p.asks(r) && (strings.Contains(r.arg, "dnsbl") || strings.Contains(r.arg, "greylist"))
}

// attachPolicy plans the hooks of the policy daemon.
func (p *planner) attachPolicy() {
	if len(p.with(Internet)) == 0 {
		p.warn("no service takes mail from the internet (smtp/inet in master.cf): nothing asks about DNS lists or greylisting")
	}
	p.attachUsers()
}

// attachLists plans the changes of the restriction lists for mail from the internet.
func (p *planner) attachLists() {
	p.findCopies()
	p.attachClasses()
	for _, name := range restrictionLists {
		for _, place := range p.places(p.with(Internet), name) {
			p.attachList(place, name)
		}
	}
}

// attachList removes the replaced elements from a list for mail from the internet. The
// list for recipients also gets our hook, or loses it if none of its checks runs any more.
func (p *planner) attachList(place *Service, name string) {
	if p.emptied(place, name) {
		return
	}
	list := p.elements(place, name)
	kept := slices.DeleteFunc(slices.Clone(list), p.replaces)
	first := p.rivalPlace(list)
	if first > 0 {
		first = len(slices.DeleteFunc(slices.Clone(list[:first]), p.replaces))
	}
	ours := name == recipientList && p.attaches(Policyd)
	if ours && len(p.inboundChecks()) == 0 {
		kept = slices.DeleteFunc(kept, p.asksAboutStrangers)
	}
	switch {
	case ours && len(p.inboundChecks()) > 0:
		with := p.withInbound(place, kept, first)
		p.warnBehind(list, with)
		p.set(place, name, p.spell(place, name, with))
	case len(kept) < len(list):
		p.warnExempt(place, name, list)
		p.set(place, name, p.spell(place, name, kept))
	}
}

// warnExempt warns of the mail that an earlier element of a list lets pass before Postfix asks
// DNS lists there: our hook is in the list for recipients, where that element is not.
func (p *planner) warnExempt(place *Service, name string, list []restriction) {
	asked := slices.IndexFunc(list, p.replacesList)
	there := p.elements(place, recipientList)
	for _, r := range list[:max(asked, 0)] {
		if excepts(r) && !slices.Contains(there, r) {
			p.warn("%s: DNS lists were not asked about what %s accepts there, and our hook in %s asks about it too: add it there, after reject_unauth_destination and before the hook, or name these clients in dnsbl-allow-clients (%s)", name, r, recipientList, p.Policyd.Config)
		}
	}
}

// excepts reports whether an element may let in mail of others before what is behind it is asked.
func excepts(r restriction) bool {
	return (isAccess(r) || lets(r) && !postconf.IsOwnPermit(r.name)) && !isOwnership(r)
}

// replacesList reports whether an element is a DNS list that our hook asks in its place.
func (p *planner) replacesList(r restriction) bool { return isList(r) && p.replaces(r) }

// rivalPlace returns the index of the first element whose place in a list our hook takes, or
// -1. Where it is in front of exceptions to a greylist or to DNS lists, it is the first of
// these: what is accepted stays so.
func (p *planner) rivalPlace(list []restriction) int {
	at := slices.IndexFunc(list, p.rivals)
	for _, is := range []func(restriction) bool{
		func(r restriction) bool { return p.asksPostgrey(r) || isList(r) && p.rivals(r) },
		func(r restriction) bool { return isList(r) && p.rivals(r) },
	} {
		if next := slices.IndexFunc(list, is); next > at && slices.ContainsFunc(list[at:next], excepts) {
			at = next
		}
	}
	return at
}

// warnBehind warns of what an element lets pass between DNS lists that our hook asks in their
// place: it asks about this mail too, because the element is behind it.
func (p *planner) warnBehind(list, with []restriction) {
	lists := 0
	for i, r := range list {
		if p.replacesList(r) {
			lists = i
		}
	}
	behind := with[slices.IndexFunc(with, p.asks):]
	for _, r := range list[:lists] {
		if excepts(r) && slices.Contains(behind, r) {
			p.warn("%s: not all DNS lists were asked about what %s accepts there, and our hook asks them all: put it before the hook, or name these clients in dnsbl-allow-clients (%s)", recipientList, r, p.Policyd.Config)
		}
	}
}

// emptied reports whether a service in master.cf has emptied a list that is set in
// main.cf.
func (p *planner) emptied(place *Service, name string) bool {
	if place == nil || len(postconf.Split(place.overrides[name])) > 0 {
		return false
	}
	if name == recipientList || name == milterList {
		p.warn("%s: %s is empty there, and stays so: Postern is not asked", place.Key, name)
	}
	return true
}

// elements returns the list at a place. A $name is expanded only if we must see what it
// holds.
func (p *planner) elements(place *Service, name string) []restriction {
	var overrides map[string]string
	raw := p.rawAt(place, name)
	if place != nil {
		overrides = place.overrides
	}
	if condition.MatchString(raw) {
		return restrictions(p.meantAt(place, name))
	}
	var all []restriction
	for _, r := range restrictions(raw) {
		inside := []restriction{r}
		if strings.HasPrefix(r.name, "$") && !isOwnership(r) && !isLimit(r) {
			if meant := restrictions(p.expand(r.name, overrides)); slices.ContainsFunc(meant, func(r restriction) bool { return condition.MatchString(r.name) }) {
				return restrictions(p.meantAt(place, name))
			} else if len(meant) == 0 || slices.ContainsFunc(meant, p.matters) {
				inside = meant
			}
		}
		all = append(all, inside...)
	}
	return all
}

// matters reports whether the position of an element decides where our hook goes.
func (p *planner) matters(r restriction) bool {
	return p.rivals(r) || p.asks(r) || lets(r) || r.is(loginChecks...) || isAccess(r)
}

// lets reports whether an element may accept mail without asking the elements after it.
func lets(r restriction) bool {
	return !r.safe && strings.HasPrefix(strings.ToLower(r.name), "permit")
}

// isAccess reports whether an element asks an access table. A table alone (hash:/etc/postfix/…)
// is one.
func isAccess(r restriction) bool {
	return !r.safe && (strings.HasSuffix(strings.ToLower(r.name), "_access") || strings.Contains(r.name, ":"))
}

// ends reports whether no element after this one is asked about mail from the internet.
func ends(r restriction) bool {
	return r.is("permit", "reject", "defer", "permit_auth_destination", "defer_if_permit")
}

// withInbound inserts our hook into a list of recipient restrictions. rival is the index
// of the first element that does the same work, or -1.
func (p *planner) withInbound(place *Service, list []restriction, rival int) []restriction {
	hook := p.inboundHook()
	if i := slices.IndexFunc(list, p.asks); i >= 0 {
		list[i] = hook
		return list
	}
	if len(list) == 0 {
		return append(p.recipientDefaults(), hook)
	}
	at := p.inboundPlace(list, rival)
	// Unknown recipients are refused before mail to them is greylisted.
	if i := slices.IndexFunc(list, isUnlisted); i >= at {
		at = i + 1
	}
	added := append(p.permits(place, list, at), p.unlisted(list[:at])...)
	return slices.Insert(list, at, append(added, hook)...)
}

// inboundPlace returns the index for our hook in a list without it.
func (p *planner) inboundPlace(list []restriction, rival int) int {
	end := slices.IndexFunc(list, ends)
	if end < 0 {
		end = len(list)
	}
	refuses := end < len(list) && refuses(list[end])
	switch {
	case rival >= 0 && (refuses || len(missing(list[:rival])) == 0):
		return rival
	case !refuses:
		return end
	}
	// Only what an earlier element permits gets in. The last of them is the rule of the
	// site, those before it are its exceptions.
	for i, r := range slices.Backward(list[:end]) {
		if isAccess(r) || lets(r) && !postconf.IsOwnPermit(r.name) || slices.Contains(p.classes(), r.name) {
			return i
		}
	}
	return end
}

// refuses reports whether an element refuses all mail that gets there.
func refuses(r restriction) bool { return r.is("reject", "defer") }

// guards reports whether an element keeps strangers from relaying.
func guards(r restriction) bool {
	return refuses(r) || r.is("reject_unauth_destination", "defer_unauth_destination")
}

// permits returns the elements that keep our hook at an index from being asked about our
// own mail, as far as they permit no mail that is refused today.
func (p *planner) permits(place *Service, list []restriction, at int) []restriction {
	lacks := missing(list[:at])
	guarded := slices.ContainsFunc(list[:at], guards) || slices.ContainsFunc(restrictions(p.meantAt(place, relayList)), guards)
	end := slices.IndexFunc(list[at:], ends)
	switch {
	case len(lacks) == 0:
		return nil
	case end >= 0 && refuses(list[at+end]):
	case guarded:
		return lacks
	case end == 0 && len(list) > at+1 && list[at].is("permit_auth_destination") && refuses(list[at+1]):
		// What relays is refused today too, two elements later.
		return append([]restriction{{name: "reject_unauth_destination"}}, lacks...)
	}
	if len(p.relayNetworks()) > 0 && slices.ContainsFunc(lacks, func(r restriction) bool { return r.is("permit_mynetworks") }) {
		p.warn("%s permits no one for being in mynetworks, so that your own hosts are judged like strangers; name those that must not be in trusted-relays (policyd.toml)", recipientList)
	}
	return nil
}

// missing returns the elements that a list lacks to keep our hook from being asked
// about our own mail.
func missing(list []restriction) []restriction {
	var all []restriction
	for _, name := range []string{"permit_mynetworks", "permit_sasl_authenticated"} {
		if !slices.ContainsFunc(list, func(r restriction) bool { return r.is(name) }) {
			all = append(all, restriction{name: name})
		}
	}
	return all
}

// unlisted returns the element that refuses unknown recipients before they are
// greylisted, if the list lacks it.
func (p *planner) unlisted(list []restriction) []restriction {
	if strings.EqualFold(p.value("smtpd_reject_unlisted_recipient"), "no") || slices.ContainsFunc(list, isUnlisted) {
		return nil
	}
	return []restriction{{name: "reject_unlisted_recipient"}}
}

func isUnlisted(r restriction) bool { return r.is("reject_unlisted_recipient") }

// recipientDefaults returns the first elements of a list that was empty. They permit
// those who may relay and refuse the relaying of others, so that our hook is asked
// about neither.
func (p *planner) recipientDefaults() []restriction {
	list := restrictions(p.value(relayList))
	if !slices.ContainsFunc(list, func(r restriction) bool { return r.is("defer_unauth_destination", "reject_unauth_destination") }) {
		list = restrictions("permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination")
	}
	for i := range list {
		if list[i].is("defer_unauth_destination") {
			list[i].name = "reject_unauth_destination"
		}
	}
	return append(list, p.unlisted(list)...)
}

// loginChecks are Postfix's own checks of who may use a sender address.
var loginChecks = []string{"reject_sender_login_mismatch", "reject_authenticated_sender_login_mismatch", "reject_known_sender_login_mismatch"}

// spell formats a list for a place. master.cf has no white space, so a list that needs
// it becomes a parameter of main.cf.
func (p *planner) spell(place *Service, name string, list []restriction) string {
	list = p.fold(place, name, list)
	var words []string
	for _, r := range list {
		words = append(words, postconf.Split(r.String())...)
	}
	return p.spellWords(place, name, words, join(list))
}

// notInName matches characters that a parameter's name cannot have.
var notInName = regexp.MustCompile(`[^A-Za-z0-9]+`)

// spellWords formats words for master.cf. If that is not possible, it sets a parameter of
// main.cf to text and returns a reference to it. In main.cf (nil) itself they are text.
func (p *planner) spellWords(s *Service, name string, words []string, text string) string {
	if s == nil {
		return text
	}
	value := strings.Join(words, ",")
	if !strings.ContainsAny(value, " \t{") {
		return value
	}
	own := ourNames + strings.Trim(notInName.ReplaceAllString(s.Name, "_"), "_") + "_" + strings.TrimPrefix(name, "smtpd_")
	p.setMain(own, text)
	return "$" + own
}
