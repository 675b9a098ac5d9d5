// The hooks of the policy daemon for mail of users: whether they own the sender, and how
// much they may send.

package setup

import (
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// ownershipName is the parameter of main.cf that holds the hook for mail of users.
// master.cf refers to it by name, because its values have no white space.
const ownershipName = ourNames + "ownership"

// limitName is the parameter that holds the hook of the limit check at the end of a
// mail.
const limitName = ourNames + "limit"

// userChecks returns the checks of the hook for mail of users. The hook names none that
// does not run, because it would have the mail deferred; without any there is no hook.
func (p *planner) userChecks() []string {
	return slices.DeleteFunc([]string{"ownership", "limit"}, func(name string) bool {
		return !p.runs(name) || name == "limit" && !p.limited
	})
}

// usersHook returns the hook for some checks. While the daemon is away, users are asked
// to try again. In shadow mode, mail passes.
func (p *planner) usersHook(names ...string) string {
	action := ""
	if p.plan.Shadow {
		action = ", default_action=DUNNO"
	}
	return restriction{name: "check_policy_service", arg: "{ " + p.Policy + ", " + policyContext(names) + action + " }"}.String()
}

// limits reports whether the limit check runs, and the administrator has set limits on how
// much users may send.
func (p *planner) limits() bool { return p.limited && p.runs("limit") }

// setOwnership plans the hook for mail of users, where lists find it by its name.
func (p *planner) setOwnership() { p.setMain(ownershipName, p.usersHook(p.userChecks()...)) }

// attachLimits plans the second hook of the limit check. It is at the end of a mail,
// when the number of recipients is final.
func (p *planner) attachLimits(s *Service) {
	list := p.elements(s, endOfData)
	has := slices.ContainsFunc(list, isLimit)
	if !p.limits() || !has && slices.ContainsFunc(list, p.asks) {
		return
	}
	p.setMain(limitName, p.usersHook("limit"))
	if !has {
		p.setService(s, endOfData, p.spell(s, endOfData, append(list, restriction{name: "$" + limitName})))
	}
}

func isLimit(r restriction) bool { return r.is("$" + limitName) }

// attachUsers plans the hooks at every service where users log in.
func (p *planner) attachUsers() {
	p.readLoginChecks()
	p.detachUsers()
	if !p.runs("ownership") && slices.ContainsFunc(p.services, p.logsIn) {
		p.warn("%s: checks has no ownership: no one is asked whether users may use their senders", p.Policyd.Config)
	}
	if len(p.userChecks()) == 0 {
		return
	}
	unchecked := p.replacesLoginChecks() && !p.checksLogins()
	internet := slices.DeleteFunc(p.with(Internet), func(s *Service) bool { return !p.logsIn(s) })
	for _, place := range p.places(internet, senderList) {
		p.attachLogins(place)
	}
	for _, s := range p.with(Users) {
		if !p.logsIn(s) {
			p.warn("%s: no one can log in there (smtpd_sasl_auth_enable); it gets no hook and no milter for users", s.Key)
			continue
		}
		p.userHooks = true
		p.attachLimits(s)
		if main := p.elements(nil, senderList); !s.has(senderList) && p.asksLogins(main) {
			p.renew(main)
			continue // the list of main.cf has the hook
		}
		list := p.senderListOf(s)
		if !p.lets(s, onlyLoggedIn) {
			list = p.keepStrangers(list)
		}
		list = p.withOwnership(list, restriction{name: "$" + ownershipName})
		p.setOwnership()
		p.setService(s, senderList, p.spell(s, senderList, list))
	}
	if unchecked && p.userHooks {
		p.warn("Postfix does not check today which envelope sender a user writes; from now on it is the address of the login, or what the tables of owners give it, and everything else is refused (553). To see first what would be, run setup with --shadow")
	}
	if len(internet) > 0 {
		p.warn("users may log in at port 25 too; take smtpd_sasl_auth_enable out of main.cf and set it for submission and submissions only, if no one does")
	}
}

// checksLogins reports whether anything, ours or Postfix's own, checks today which senders
// users write.
func (p *planner) checksLogins() bool {
	return slices.ContainsFunc(append([]*Service{nil}, p.services...), func(at *Service) bool {
		return slices.ContainsFunc(restrictionLists, func(name string) bool {
			return slices.ContainsFunc(restrictions(p.meantAt(at, name)), func(r restriction) bool {
				return r.is(loginChecks...) || p.asksAboutUsers(r)
			})
		})
	})
}

// detachUsers takes our hooks out of the lists if none of their checks runs any more.
func (p *planner) detachUsers() {
	if !p.limits() {
		p.detach(endOfData, isLimit)
	}
	if len(p.userChecks()) > 0 {
		return
	}
	p.detach(senderList, isOwnership)
	if classes := postconf.Split(p.main[restrictionClasses]); slices.Contains(classes, ownershipName) {
		p.setMain(restrictionClasses, strings.Join(slices.DeleteFunc(classes, func(name string) bool { return name == ownershipName }), ", "))
	}
}

// detach plans the removal of elements from a list, wherever it is set.
func (p *planner) detach(name string, ours func(restriction) bool) {
	for _, place := range p.places(p.services, name) {
		list := p.elements(place, name)
		if slices.ContainsFunc(list, ours) {
			p.set(place, name, p.spell(place, name, slices.DeleteFunc(list, ours)))
		}
	}
}

// attachLogins plans the hook at a service that takes both logins and mail from the
// internet. It is asked only about users who have logged in, so only they have to wait
// while the daemon is away.
func (p *planner) attachLogins(place *Service) {
	p.userHooks = true
	list := p.elements(place, senderList)
	if p.asksLogins(list) && !slices.ContainsFunc(list, isLoginClass) {
		p.renew(list)
		return
	}
	// The class is there if an earlier run only watched: then Postfix's own check is still
	// beside it.
	list = p.withOwnership(p.keepStrangers(list), restriction{name: "check_sasl_access", arg: "static:" + ownershipName})
	p.setOwnership()
	classes := postconf.Split(p.main[restrictionClasses])
	if !slices.Contains(classes, ownershipName) {
		p.setMain(restrictionClasses, strings.Join(append(classes, ownershipName), ", "))
	}
	p.set(place, senderList, p.spell(place, senderList, list))
}

// keepStrangers adds to a list what Postfix goes on to check when our hook takes the place
// of its own check of logins: listed senders that are used without a login.
func (p *planner) keepStrangers(list []restriction) []restriction {
	const strangers = "reject_unauthenticated_sender_login_mismatch"
	at := slices.IndexFunc(list, func(r restriction) bool {
		return r.is("reject_sender_login_mismatch", "reject_known_sender_login_mismatch")
	})
	if at < 0 || !p.replacesLoginChecks() || slices.ContainsFunc(list, func(r restriction) bool { return r.is(strangers) }) {
		return list
	}
	return slices.Insert(list, at+1, restriction{name: strangers})
}

// onlyLoggedIn reports whether a list of restrictions refuses everyone who has not logged
// in, hosts of the site too.
func onlyLoggedIn(list string) bool {
	return postconf.OnlyLogins(list) && !slices.ContainsFunc(postconf.Split(list), func(word string) bool {
		return postconf.IsOwnPermit(word) && !strings.EqualFold(word, "permit_sasl_authenticated")
	})
}

// readLoginChecks notes what Postfix does today with senders that no table lists, where
// users log in. It must be asked before the lists change.
func (p *planner) readLoginChecks() {
	const known = "reject_known_sender_login_mismatch"
	var lax, strict bool
	for _, s := range p.loginServices() {
		var list []restriction
		for _, name := range restrictionLists {
			value := func(name string) string { return p.get(s, name) }
			list = append(list, restrictions(postconf.Inline(value(name), value))...)
		}
		has := func(names ...string) bool {
			return slices.ContainsFunc(list, func(r restriction) bool { return r.is(names...) })
		}
		strict = strict || has(slices.DeleteFunc(slices.Clone(loginChecks), func(name string) bool { return name == known })...)
		lax = lax || has(known)
	}
	p.unlistedPass = lax && !strict
	if lax && strict && p.runs("ownership") {
		p.warn("of senders that no table lists, some services let users send them (%s), and some refuse them; postern-policyd has one rule for all, and refuses them: owners-unlisted = \"pass\" in %s lets users send them", known, p.Policyd.Config)
	}
}

// isOwnership reports whether an element is our hook for mail of users, by its name.
func isOwnership(r restriction) bool { return r.is("$"+ownershipName) || isLoginClass(r) }

// isLoginClass reports whether an element asks our hook about users who have logged in.
func isLoginClass(r restriction) bool {
	return r.is("check_sasl_access") && r.arg == "static:"+ownershipName
}

// asksAboutUsers reports whether an element is a hook for mail of users.
func (p *planner) asksAboutUsers(r restriction) bool {
	return isOwnership(r) || p.asks(r) && slices.ContainsFunc(p.userChecks(), func(name string) bool { return strings.Contains(r.arg, name) })
}

// asksLogins reports whether a list asks about users.
func (p *planner) asksLogins(list []restriction) bool {
	return slices.ContainsFunc(list, p.asksAboutUsers)
}

// findCopies notes the services for users whose list of sender restrictions is a copy of
// that in main.cf: an earlier run has put our hook into it, and nothing else is different.
// What is taken out of main.cf has to go there too. A list with a check of logins that
// main.cf lacks is the service's own, so that the check stays while we do not replace it.
func (p *planner) findCopies() {
	p.copies = make(map[*Service]bool)
	isLoginCheck := func(r restriction) bool { return r.is(loginChecks...) }
	main := p.elements(nil, senderList)
	rest := func(list []restriction) []restriction {
		return slices.DeleteFunc(slices.Clone(list), func(r restriction) bool { return isLoginCheck(r) || isOwnership(r) })
	}
	for _, s := range p.with(Users) {
		own := p.elements(s, senderList)
		p.copies[s] = s.has(senderList) && slices.ContainsFunc(own, isOwnership) && slices.Equal(rest(own), rest(main)) &&
			!slices.ContainsFunc(own, func(r restriction) bool { return isLoginCheck(r) && !slices.Contains(main, r) })
	}
}

// senderListOf returns the list of sender restrictions of a service, or that which it is a
// copy of.
func (p *planner) senderListOf(s *Service) []restriction {
	if p.copies[s] {
		s = nil
	}
	return p.elements(s, senderList)
}

// renew plans the hook that a list names already, as it has to be now.
func (p *planner) renew(list []restriction) {
	if slices.ContainsFunc(list, isOwnership) {
		p.setOwnership()
	}
}

// replacesLoginChecks reports whether our hook takes the place of Postfix's own checks of
// logins.
func (p *planner) replacesLoginChecks() bool { return p.runs("ownership") && !p.plan.Shadow }

// withOwnership returns a list of sender restrictions with the hook. The hook replaces
// Postfix's own checks of logins, or comes before the first element that might permit a sender.
func (p *planner) withOwnership(list []restriction, hook restriction) []restriction {
	at := slices.IndexFunc(list, p.asksAboutUsers)
	if at >= 0 {
		list[at] = hook
	} else {
		list = slices.Insert(list, ownershipPlace(list), hook)
	}
	if !p.replacesLoginChecks() {
		return list
	}
	return slices.DeleteFunc(list, func(r restriction) bool { return r.is(loginChecks...) })
}

// ownershipPlace returns the index for the ownership hook in a list without it.
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
