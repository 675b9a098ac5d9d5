// The hooks of the policy daemon in Postfix's lists of restrictions.

package setup

import (
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/postconf"
)

// ownershipName is the parameter of main.cf that holds the ownership hook: values in
// master.cf are written without white space.
const ownershipName = ourNames + "ownership"

// limitName holds the hook of the limit check at the end of a mail.
const limitName = ourNames + "limit"

// restrictionLists are the parameters that may ask a policy service, in the order in
// which smtpd(8) asks them.
var restrictionLists = []string{
	"smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions", "smtpd_relay_restrictions",
	"smtpd_recipient_restrictions", "smtpd_data_restrictions", "smtpd_end_of_data_restrictions",
}

const (
	senderList    = "smtpd_sender_restrictions"
	recipientList = "smtpd_recipient_restrictions"
	endOfData     = "smtpd_end_of_data_restrictions"
)

// inboundHook asks about mail from the internet. While the daemon is away, mail
// passes.
func (p *planner) inboundHook() restriction {
	checks := strings.Join(p.inboundChecks(), ", ")
	context := "policy_context=" + checks
	if strings.Contains(checks, ",") {
		context = "{ policy_context = " + checks + " }"
	}
	return restriction{name: "check_policy_service", arg: "{ " + p.Policy + ", " + context + ", default_action=DUNNO }"}
}

func (p *planner) inboundChecks() []string {
	if p.Greylister == ours {
		return []string{"dnsbl", "greylist"}
	}
	return []string{"dnsbl"}
}

// ownershipHook asks who may use a sender. While the daemon is away, users are told
// to try again, unless it only watches.
func (p *planner) ownershipHook() restriction {
	action := ""
	if p.plan.Shadow {
		action = ", default_action=DUNNO"
	}
	context := "policy_context=ownership"
	if p.limits() {
		context = "{ policy_context = ownership, limit }"
	}
	return restriction{name: "check_policy_service", arg: "{ " + p.Policy + ", " + context + action + " }"}
}

// limits reports whether the administrator has limited how much users may send.
func (p *planner) limits() bool {
	data, err := os.ReadFile(p.Policyd.Config)
	if err != nil {
		return false
	}
	file, err := config.ParseDocument(p.Policyd.Config, data)
	return err == nil && len(file.Values("limit"))+len(file.Values("limit-overrides")) > 0
}

// attachLimits plans that the limit check is asked at the end of a mail too, when it
// is certain how many recipients there are.
func (p *planner) attachLimits(s *Service) {
	list := p.elements(s, endOfData)
	if !p.limits() || slices.ContainsFunc(list, func(r restriction) bool { return p.asks(r) || r.is("$"+limitName) }) {
		return
	}
	hook := p.ownershipHook()
	hook.arg = strings.Replace(hook.arg, "{ policy_context = ownership, limit }", "policy_context=limit", 1)
	p.setMain(limitName, hook.String())
	p.setService(s, endOfData, p.spell(s, endOfData, append(list, restriction{name: "$" + limitName})))
}

// asks reports whether an element asks our policy daemon.
func (p *planner) asks(r restriction) bool {
	return r.is("check_policy_service") && endpointOf(r.arg) == normal(p.Policy)
}

// attachPolicy plans the hooks of the policy daemon.
func (p *planner) attachPolicy() {
	if len(p.with(Internet)) == 0 {
		p.warn("no service takes mail from the internet (smtp/inet in master.cf): nothing asks about DNS lists or greylisting")
	}
	p.attachUsers()
}

// attachLists plans the lists for mail from the internet.
func (p *planner) attachLists() {
	for _, name := range restrictionLists {
		for _, place := range p.places(p.with(Internet), name) {
			p.attachList(place, name)
		}
	}
}

// attachList takes what is replaced out of a list for mail from the internet, and puts
// our hook into the one for recipients.
func (p *planner) attachList(place *Service, name string) {
	if p.emptied(place, name) {
		return
	}
	list := p.elements(place, name)
	first := slices.IndexFunc(list, p.rivals) // of kept too: nothing before it is taken out
	kept := slices.DeleteFunc(slices.Clone(list), p.replaces)
	switch {
	case name == recipientList && p.attaches(Policyd):
		p.set(place, name, p.spell(place, name, p.withInbound(kept, first)))
	case len(kept) < len(list):
		p.set(place, name, p.spell(place, name, kept))
	}
}

// emptied reports whether the administrator has left a service without a list that
// main.cf has.
func (p *planner) emptied(place *Service, name string) bool {
	if place == nil || len(postconf.Split(place.overrides[name])) > 0 {
		return false
	}
	if name == recipientList || name == milterList {
		p.warn("%s: %s is empty there, and stays so: Postern is not asked", place.Key, name)
	}
	return true
}

// elements returns the list that is set at a place. A $name is replaced by what it
// means when we have to see what is inside.
func (p *planner) elements(place *Service, name string) []restriction {
	var overrides map[string]string
	raw := p.rawAt(place, name)
	if place != nil {
		overrides = place.overrides
	}
	if strings.Contains(raw, "${") {
		return restrictions(p.meantAt(place, name))
	}
	var all []restriction
	for _, r := range restrictions(raw) {
		inside := []restriction{r}
		if strings.HasPrefix(r.name, "$") && r.name != "$"+ownershipName {
			if meant := restrictions(p.expand(r.name, overrides)); len(meant) == 0 || slices.ContainsFunc(meant, p.matters) {
				inside = meant
			}
		}
		all = append(all, inside...)
	}
	return all
}

// matters reports whether the place of an element decides where ours goes.
func (p *planner) matters(r restriction) bool {
	return p.rivals(r) || p.asks(r) || lets(r) || r.is(loginChecks...) || isAccess(r)
}

// lets reports whether an element may let mail in without asking those behind it.
func lets(r restriction) bool {
	return !r.safe && strings.HasPrefix(strings.ToLower(r.name), "permit")
}

func isAccess(r restriction) bool {
	return !r.safe && strings.HasSuffix(strings.ToLower(r.name), "_access")
}

// ends reports whether nothing behind an element is asked about mail from the
// internet.
func ends(r restriction) bool {
	return r.is("permit", "reject", "defer", "permit_auth_destination", "defer_if_permit")
}

// withInbound returns a list of recipient restrictions with our hook at a place, or
// where it belongs if that is -1.
func (p *planner) withInbound(list []restriction, at int) []restriction {
	hook := p.inboundHook()
	if i := slices.IndexFunc(list, p.asks); i >= 0 {
		list[i] = hook
		return list
	}
	if len(list) == 0 {
		return append(p.recipientDefaults(), hook)
	}
	before := func(i int) []restriction { return p.missing(list[:i]) }
	if at < 0 || len(before(at)) > 0 {
		if at = slices.IndexFunc(list, ends); at < 0 {
			at = len(list)
		}
	}
	// Unknown recipients are refused before they are greylisted.
	if i := slices.IndexFunc(list, isUnlisted); i >= at {
		at = i + 1
	}
	added := append(before(at), p.unlisted(list[:at])...)
	return slices.Insert(list, at, append(added, hook)...)
}

// missing returns what keeps our hook from being asked about our own mail, as far as
// it is not in a list.
func (p *planner) missing(list []restriction) []restriction {
	var all []restriction
	for _, name := range []string{"permit_mynetworks", "permit_sasl_authenticated"} {
		if !slices.ContainsFunc(list, func(r restriction) bool { return r.is(name) }) {
			all = append(all, restriction{name: name})
		}
	}
	return all
}

// unlisted returns what refuses unknown recipients before they are greylisted.
func (p *planner) unlisted(list []restriction) []restriction {
	if strings.EqualFold(p.value("smtpd_reject_unlisted_recipient"), "no") || slices.ContainsFunc(list, isUnlisted) {
		return nil
	}
	return []restriction{{name: "reject_unlisted_recipient"}}
}

func isUnlisted(r restriction) bool { return r.is("reject_unlisted_recipient") }

// recipientDefaults is what a list that was empty begins with: who may relay, so that
// our hook is not asked about the rest.
func (p *planner) recipientDefaults() []restriction {
	list := restrictions(p.value("smtpd_relay_restrictions"))
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

// loginChecks are Postfix's own checks of who may use a sender.
var loginChecks = []string{"reject_sender_login_mismatch", "reject_authenticated_sender_login_mismatch", "reject_known_sender_login_mismatch"}

// attachUsers plans the ownership hook wherever users log in.
func (p *planner) attachUsers() {
	internet := slices.DeleteFunc(p.with(Internet), func(s *Service) bool { return !p.logsIn(s) })
	for _, place := range p.places(internet, senderList) {
		p.attachLogins(place)
	}
	for _, s := range p.with(Users) {
		if !p.logsIn(s) {
			p.warn("%s: no one can log in there (smtpd_sasl_auth_enable); it is left as it is", s.Key)
			continue
		}
		p.owners = true
		p.attachLimits(s)
		if !s.has(senderList) && p.asksLogins(p.elements(nil, senderList)) {
			continue // main.cf asks
		}
		list := p.withOwnership(p.elements(s, senderList), restriction{name: "$" + ownershipName})
		p.setMain(ownershipName, p.ownershipHook().String())
		p.setService(s, senderList, p.spell(s, senderList, list))
	}
	if len(internet) > 0 {
		p.warn("users may log in at port 25 too; take smtpd_sasl_auth_enable out of main.cf and set it for submission and submissions only, if no one does")
	}
}

// attachLogins plans the hook where users log in beside mail from the internet: it is
// asked about those who did, so that only they wait while the daemon is away.
func (p *planner) attachLogins(place *Service) {
	p.owners = true
	list := p.elements(place, senderList)
	if p.asksLogins(list) {
		return
	}
	// What is not about logins stays with Postfix.
	if i := slices.IndexFunc(list, func(r restriction) bool { return r.is("reject_sender_login_mismatch") }); i >= 0 && !p.plan.Shadow {
		list = slices.Insert(list, i+1, restriction{name: "reject_unauthenticated_sender_login_mismatch"})
	}
	list = p.withOwnership(list, restriction{name: "check_sasl_access", arg: "static:" + ownershipName})
	p.setMain(ownershipName, p.ownershipHook().String())
	classes := postconf.Split(p.main["smtpd_restriction_classes"])
	if !slices.Contains(classes, ownershipName) {
		p.setMain("smtpd_restriction_classes", strings.Join(append(classes, ownershipName), ", "))
	}
	p.set(place, senderList, p.spell(place, senderList, list))
}

// asksLogins reports whether a list asks the ownership check about users.
func (p *planner) asksLogins(list []restriction) bool {
	return slices.ContainsFunc(list, func(r restriction) bool {
		return r.is("check_sasl_access") && r.arg == "static:"+ownershipName || r.is("$"+ownershipName) ||
			p.asks(r) && strings.Contains(r.arg, "ownership")
	})
}

// withOwnership returns a list of sender restrictions with a hook in place of
// Postfix's own checks, or before what might let a sender in unasked.
func (p *planner) withOwnership(list []restriction, hook restriction) []restriction {
	at := slices.IndexFunc(list, func(r restriction) bool {
		return p.asks(r) && strings.Contains(r.arg, "ownership") || r.is("$"+ownershipName)
	})
	if at >= 0 {
		list[at] = hook
	} else {
		list = slices.Insert(list, ownershipPlace(list), hook)
	}
	if p.plan.Shadow {
		return list
	}
	return slices.DeleteFunc(list, func(r restriction) bool { return r.is(loginChecks...) })
}

// ownershipPlace is where the ownership hook goes in a list that does not have it.
func ownershipPlace(list []restriction) int {
	native := slices.IndexFunc(list, func(r restriction) bool { return r.is(loginChecks...) })
	open := slices.IndexFunc(list, func(r restriction) bool { return lets(r) || ends(r) })
	if open < 0 {
		open = len(list)
	}
	if native >= 0 && native < open {
		return native
	}
	if access := slices.IndexFunc(list, isAccess); access >= 0 && access < open {
		return access
	}
	return open
}

// spell spells a list for a place. In master.cf there is no white space: a list that
// needs it goes into main.cf under a name of its own.
func (p *planner) spell(place *Service, name string, list []restriction) string {
	if place == nil {
		return join(list)
	}
	var words []string
	for _, r := range list {
		words = append(words, postconf.Split(r.String())...)
	}
	return p.spellService(place, name, words, join(list))
}

// notInName matches what cannot be part of a parameter's name.
var notInName = regexp.MustCompile(`[^A-Za-z0-9]+`)

// spellService spells words for master.cf, or puts text into main.cf and returns its
// name.
func (p *planner) spellService(s *Service, name string, words []string, text string) string {
	value := strings.Join(words, ",")
	if !strings.ContainsAny(value, " \t{") {
		return value
	}
	own := ourNames + strings.Trim(notInName.ReplaceAllString(s.Name, "_"), "_") + "_" + strings.TrimPrefix(name, "smtpd_")
	p.setMain(own, text)
	return "$" + own
}
