// Restriction classes: lists of restrictions that other lists, or tables, name.

package setup

import (
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

const restrictionClasses = "smtpd_restriction_classes"

// classes returns the restriction classes of the site.
func (p *planner) classes() []string {
	return slices.DeleteFunc(postconf.Split(p.value(restrictionClasses)), func(name string) bool { return strings.HasPrefix(name, ourNames) })
}

// attachClasses replaces other programs in restriction classes. Tables may name these for
// some mail only, and then the greylist stays selective: our hook in the list for
// recipients does not ask for it.
func (p *planner) attachClasses() {
	byClass := false
	for _, name := range p.classes() {
		before := p.elements(nil, name)
		list := before
		if p.Greylister == ours && slices.ContainsFunc(list, p.asksPostgrey) {
			list = p.greylistInClass(list)
		}
		byClass = byClass || slices.ContainsFunc(list, p.asksGreylist)
		if kept := slices.DeleteFunc(slices.Clone(list), p.asksReplaced); len(kept) > 0 {
			list = kept
		} else if len(list) > 0 { // Postfix takes no empty class
			p.next("the restriction class %s asks nothing but a program that Postern replaces; take the class out of Postfix", name)
		}
		if !slices.Equal(list, before) {
			p.setMain(name, join(list))
		}
	}
	p.selective = byClass && !p.listsGreylist()
}

// asksReplaced reports whether an element asks a program that is replaced.
func (p *planner) asksReplaced(r restriction) bool {
	peer := p.policyPeer(r)
	return peer != nil && peer.Replaced
}

// greylistInClass returns the list of a class with our hook in place of postgrey, or
// behind it in shadow mode.
func (p *planner) greylistInClass(list []restriction) []restriction {
	list = slices.DeleteFunc(slices.Clone(list), p.asks)
	at, hook := slices.IndexFunc(list, p.asksPostgrey), p.strangersHook("greylist")
	if p.plan.Shadow {
		return slices.Insert(list, at+1, hook)
	}
	list[at] = hook
	return list
}

// listsGreylist reports whether a list itself, and not only a class, asks a greylist.
func (p *planner) listsGreylist() bool {
	return slices.ContainsFunc(restrictionLists, func(name string) bool {
		return slices.ContainsFunc(p.places(p.with(Internet), name), func(place *Service) bool {
			return slices.ContainsFunc(restrictions(p.meantAt(place, name)), func(r restriction) bool { return p.asksPostgrey(r) || p.asksGreylist(r) })
		})
	})
}

// asksGreylist reports whether an element asks for our greylist.
func (p *planner) asksGreylist(r restriction) bool {
	return p.asks(r) && strings.Contains(r.arg, "greylist")
}

// asksPostgrey reports whether an element asks postgrey, or its like, that we replace.
func (p *planner) asksPostgrey(r restriction) bool {
	peer := p.policyPeer(r)
	return peer != nil && peer.kind != nil && peer.kind.by == Policyd && p.overlaps(peer)
}

// policyPeer returns the other program that an element asks, or nil.
func (p *planner) policyPeer(r restriction) *Peer {
	if !r.is("check_policy_service") {
		return nil
	}
	return p.bySocket(endpointOf(r.arg))
}
