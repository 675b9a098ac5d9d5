package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// queuedLine is where smtpd(8) logs a mail that it takes: the client, and behind it who has
// logged in.
var queuedLine = regexp.MustCompile(`postfix[^ ]*/smtpd\[\d+\]: [0-9A-Za-z]+: client=[^\[]*\[([0-9A-Fa-f:.]+)\](.*)`)

// maxNamed is the most hosts that a finding names.
const maxNamed = 3

// sendersOf returns the clients in a log whose mail was taken without a login, without the
// programs of this machine.
func sendersOf(log string) []netip.Addr {
	var all []netip.Addr
	for _, m := range queuedLine.FindAllStringSubmatch(log, -1) {
		addr, err := netip.ParseAddr(m[1])
		if addr = addr.Unmap(); err == nil && !addr.IsLoopback() && !strings.Contains(m[2], "sasl_username=") && !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	return all
}

// networks parses networks and addresses. What is neither is left out.
func networks(texts []string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		if network, ok := postconf.Network(text); ok {
			all = append(all, network)
		}
	}
	return all
}

func within(addr netip.Addr, networks []netip.Prefix) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// knownHosts are the networks that milterd's settings name as the site's own.
func (f *Facts) knownHosts() []netip.Prefix {
	return networks(slices.Concat(f.Milterd.list("trusted-relays"), f.Milterd.list("internal-networks")))
}

// ownHosts judges hosts in mynetworks whose mail milterd takes for that of strangers, apart
// from the backup MX hosts, which have findings of their own.
func (f *Facts) ownHosts(senders []netip.Addr) []Finding {
	if !f.signs() {
		return nil
	}
	var found []Finding
	for _, s := range f.Postfix.smtpds() {
		known := networks(f.Milterd.list("trusted-relays"))
		switch role := f.roleAt(s); {
		case !s.isInbound() || role != roleVerify && role != roleSession:
			continue
		case role == roleSession:
			known = f.knownHosts()
		}
		own := networks(postconf.Split(s.Value("mynetworks")))
		var judged []string
		for _, addr := range senders {
			if within(addr, own) && !within(addr, known) {
				judged = append(judged, addr.String())
			}
		}
		if len(judged) == 0 {
			continue
		}
		named := judged[:min(len(judged), maxNamed)]
		found = appendNew(found, warnf(fmt.Sprintf("if it is your own mail: internal-networks = [%s] in milterd.toml, and then postern setup --apply; if these hosts hand on the mail of others (a backup MX, a filter), name them in trusted-relays of both daemons", quoted(named)),
			"%s: hosts in mynetworks send without a login (%s): their mail is judged like a stranger's, and is not signed", s, strings.Join(named, ", ")))
	}
	return found
}

// backups judges hosts that take mail for the site's domains when this one is away, and
// hand it on: what they bring looks as if they had sent it. rest are the other senders.
func (f *Facts) backups(ctx context.Context, senders []netip.Addr) (found []Finding, rest []netip.Addr) {
	relays := networks(f.Milterd.list("trusted-relays"))
	if len(senders) == 0 || f.DNSErr != nil || !f.verifies() {
		return nil, senders
	}
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.lists)
	defer cancel()
	for _, host := range f.behindUs(ctx) {
		addrs, err := f.DNS.LookupNetIP(ctx, "ip", host)
		if err != nil {
			continue // checkDomains and others report DNS that does not answer
		}
		for _, addr := range addrs {
			if addr = addr.Unmap(); slices.Contains(senders, addr) && !within(addr, relays) {
				found = appendNew(found, warnf(fmt.Sprintf("set trusted-relays = [\"%s\"] in policyd.toml and milterd.toml, so that the client of the backup MX is judged", addr),
					"the backup MX %s (%s) hands on mail: it is judged as if that host had sent it, and fails SPF", host, addr))
				senders = slices.DeleteFunc(slices.Clone(senders), func(a netip.Addr) bool { return a == addr })
			}
		}
	}
	return found, senders
}

// behindUs returns the MX hosts of the site's domains that others use only when this one
// does not answer.
func (f *Facts) behindUs(ctx context.Context) []string {
	domains := f.ownDomains()
	per := make([][]string, len(domains))
	each(len(domains), func(i int) {
		all, err := f.DNS.LookupMX(ctx, domains[i])
		at := slices.IndexFunc(all, func(mx *net.MX) bool { return f.isHostname(mx.Host) })
		if err != nil || at < 0 {
			return
		}
		for _, mx := range all {
			if mx.Pref > all[at].Pref && !f.isHostname(mx.Host) {
				per[i] = append(per[i], strings.ToLower(strings.TrimSuffix(mx.Host, ".")))
			}
		}
	})
	hosts := slices.Concat(per...)
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

func (f *Facts) isHostname(host string) bool {
	return strings.EqualFold(strings.TrimSuffix(host, "."), f.hostname())
}

// ownDomains returns the domains that this Postfix takes mail for, as far as main.cf names
// them and not a table.
func (f *Facts) ownDomains() []string {
	var all []string
	for _, name := range []string{"mydestination", "relay_domains", "virtual_mailbox_domains", "virtual_alias_domains"} {
		for _, domain := range postconf.Split(strings.ToLower(f.Postfix.Params[name])) {
			if strings.Contains(domain, ".") && !strings.ContainsAny(domain, ":/!") && !slices.Contains(all, domain) && len(all) < maxDomains {
				all = append(all, domain)
			}
		}
	}
	return all
}

// quoted formats the values of a list of settings.
func quoted(values []string) string { return `"` + strings.Join(values, `", "`) + `"` }
