// Own hosts that send through port 25 without a login: those of mynetworks.

package setup

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// relayNetworks returns the networks of mynetworks except this machine.
func (p *planner) relayNetworks() []netip.Prefix {
	var all []netip.Prefix
	for _, text := range postconf.Split(p.value("mynetworks")) {
		prefix, ok := postconf.Network(text)
		if ok && !prefix.Addr().Unmap().IsLoopback() && !isThisMachine(prefix) {
			all = append(all, prefix)
		}
	}
	return all
}

// isThisMachine reports whether a network is one address of this machine: without
// mynetworks in main.cf, Postfix takes these.
func isThisMachine(prefix netip.Prefix) bool {
	own, err := net.InterfaceAddrs()
	return err == nil && prefix.IsSingleIP() && slices.ContainsFunc(own, func(a net.Addr) bool {
		one, err := netip.ParsePrefix(a.String())
		return err == nil && one.Addr().Unmap() == prefix.Addr().Unmap()
	})
}

// namesInternal reports whether the administrator has named the networks whose mail is
// signed without a login.
func (p *planner) namesInternal() bool { return len(p.namedNetworks("internal-networks")) > 0 }

// namedNetworks returns the networks that a setting of the milter daemon names: in its file
// or, where another program's are carried over, in the plan.
func (p *planner) namedNetworks(setting string) []netip.Prefix {
	var values []string
	if file, err := p.document(p.Milterd.Config); err == nil {
		values = file.Values(setting)
	}
	for _, s := range p.milterd.list {
		if s.Name == setting {
			values = append(values, s.Values...)
		}
	}
	var all []netip.Prefix
	for _, text := range values {
		if prefix, ok := postconf.Network(text); ok {
			all = append(all, prefix)
		}
	}
	return all
}

// maxNamed is the most networks that a warning names.
const maxNamed = 5

// strangeHosts returns the networks of mynetworks whose mail the milter judges like that of
// strangers: neither internal-networks nor trusted-relays names any host of them.
func (p *planner) strangeHosts() []string {
	known := slices.Concat(p.namedNetworks("internal-networks"), p.namedNetworks("trusted-relays"))
	var all []string
	for _, n := range p.relayNetworks() {
		if !slices.ContainsFunc(known, n.Overlaps) {
			addOnce(&all, n.String())
		}
	}
	return all
}

// warnHosts says what happens to mail that comes in at port 25 without a login from own
// hosts, or from programs of this machine where port 25 is for them.
func (p *planner) warnHosts() {
	if !p.attaches(Milterd) {
		return
	}
	judged := slices.DeleteFunc(p.with(Internet), func(s *Service) bool {
		return p.noMilters(s) || p.get(s, proxyFilter) != "" || !p.letsNetworks(s)
	})
	networks := p.strangeHosts()
	hosts := strings.Join(networks[:min(len(networks), maxNamed)], ", ")
	if more := len(networks) - maxNamed; more > 0 {
		hosts += fmt.Sprintf(" and %d more", more)
	}
	if len(judged) > 0 && p.signs() {
		for _, name := range p.listManagers() {
			p.next("%s sends to port 25 of this machine, where its mail is not signed: give it a service of its own (milter/SIGNING.md, Local applications)", name)
		}
	}
	switch {
	case len(judged) == 0:
	case hosts != "" && p.signs():
		p.warn("hosts in mynetworks (%s) that send through %s without a login are judged like strangers, and their mail is not signed; name those whose mail is yours in internal-networks, and relays and backup MX hosts, which hand on the mail of others, in trusted-relays (both in %s); then run postern setup --apply again", hosts, judged[0].Key, p.Milterd.Config)
	case hosts != "":
		p.warn("hosts in mynetworks (%s) that send through %s without a login are judged like strangers; name them in a file of trusted-forwarders, or relays and backup MX hosts in trusted-relays (%s)", hosts, judged[0].Key, p.Milterd.Config)
	case p.signs() && !p.plan.Shadow && !p.namesInternal() && slices.ContainsFunc(judged, p.takesOwn):
		p.warn("what programs of this machine send through port 25 is not signed; if all of it is your own mail, set internal-networks = [\"127.0.0.0/8\", \"::1\"] in milterd.toml")
	}
}

// letsNetworks reports whether a service lets the hosts of mynetworks send to others.
func (p *planner) letsNetworks(s *Service) bool {
	return slices.ContainsFunc([]string{relayList, recipientList}, func(name string) bool {
		list := restrictions(postconf.Inline(p.get(s, name), func(name string) string { return p.get(s, name) }))
		return slices.ContainsFunc(list, func(r restriction) bool { return r.is("permit_mynetworks") })
	})
}

// listManagers returns the list managers that Postfix hands mail to and that send by SMTP,
// unless a service of loopback signs what comes back from them. (Sympa uses sendmail(1).)
func (p *planner) listManagers() []string {
	if slices.ContainsFunc(p.with(Filter), p.signsAt) {
		return nil
	}
	return slices.DeleteFunc([]string{"Mailman", "mlmmj"}, func(manager string) bool {
		return !slices.ContainsFunc([]string{"transport_maps", "local_recipient_maps", "relay_domains", "alias_maps", "virtual_alias_maps"}, func(name string) bool {
			return strings.Contains(p.value(name), strings.ToLower(manager))
		})
	})
}
