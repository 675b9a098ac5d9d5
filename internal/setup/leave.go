// What the lists of all other services lose: programs that are replaced, and our milter
// where they would inherit it from main.cf.

package setup

import (
	"iter"
	"slices"
)

// written visits these lists in main.cf (nil), and in each service that has its own.
func (p *planner) written(names ...string) iter.Seq2[*Service, string] {
	return func(yield func(*Service, string) bool) {
		for _, place := range append([]*Service{nil}, p.services...) {
			for _, name := range names {
				if (place == nil || place.has(name)) && !yield(place, name) {
					return
				}
			}
		}
	}
}

// leavePolicy removes the policy services that are replaced from the lists that get no
// hook. Once these programs are stopped, Postfix would defer all mail there.
func (p *planner) leavePolicy() {
	for place, name := range p.written(restrictionLists...) {
		list := p.elements(place, name)
		if kept := slices.DeleteFunc(slices.Clone(list), p.asksReplaced); len(kept) < len(list) {
			p.set(place, name, p.spell(place, name, kept))
		}
	}
}

// leaveMilters does the same for milters.
func (p *planner) leaveMilters() {
	for place, name := range p.written(milterList, localMilters) {
		list := p.milters(place, name)
		kept := p.keptMilters(list)
		if len(kept) == len(list) {
			continue
		}
		p.setMilters(place, name, kept)
		if place != nil && place.Role == Filter && slices.ContainsFunc(list, p.isOldSigner) {
			p.warn("%s: OpenDKIM signed there, behind the content filter; Postern signs before the filter, and a filter that changes bodies breaks the signatures", place.Key)
		}
	}
}

// isOldSigner reports whether a milter is a signer, such as OpenDKIM, that is replaced.
func (p *planner) isOldSigner(element string) bool {
	peer := p.bySocket(endpointOf(element))
	return peer != nil && peer.Replaced && peer.kind.signs
}

// signedHosts reports whether a service is for own hosts, whose mail the OpenDKIM that is
// replaced signs there. Our milter takes its place.
func (p *planner) signedHosts(s *Service) bool {
	return s.Role == Hosts && slices.ContainsFunc(p.milters(s, milterList), p.isOldSigner)
}

// hostsSigned returns the services of which that is so.
func (p *planner) hostsSigned() []*Service {
	return slices.DeleteFunc(p.with(Hosts), func(s *Service) bool { return !p.signedHosts(s) })
}

// attachHosts plans our milter there. It is written into master.cf even where the list of
// main.cf has it: a later run finds no OpenDKIM any more, and keeps our milter out of
// services that merely inherit it.
func (p *planner) attachHosts(all []*Service) {
	for _, s := range all {
		p.set(s, milterList, p.verifyList(s))
	}
}

// spared returns the services that would inherit our milter with the list of main.cf,
// although their mail is not the internet's: what a content filter hands back was judged
// when it came in, and own hosts would be judged like strangers.
func (p *planner) spared() []*Service {
	return slices.DeleteFunc(slices.Concat(p.with(Filter), p.with(Hosts)), func(s *Service) bool {
		return s.has(milterList) || p.noMilters(s) || p.signedHosts(s)
	})
}

// spare keeps our milter out of services.
func (p *planner) spare(services []*Service) {
	for _, s := range services {
		list := p.milters(s, milterList)
		if kept := p.keptMilters(list, p.Verify); len(kept) < len(list) {
			p.setMilters(s, milterList, kept)
		}
	}
}
