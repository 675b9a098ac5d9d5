// The DNS lists that Postfix asks itself.

package setup

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// lists are the DNS lists that the dnsbl check takes over.
type lists struct {
	clients, domains, names []string
	key                     string // the key of the Spamhaus Data Query Service
}

// listNames maps the restrictions that ask lists of domains to the dnsbl check's name
// for the domain that is looked up.
var listNames = map[string]string{
	"reject_rhsbl_sender":         "sender",
	"reject_rhsbl_helo":           "helo",
	"reject_rhsbl_client":         "client",
	"reject_rhsbl_reverse_client": "reverse",
}

func isList(r restriction) bool {
	return r.is("reject_rbl_client") || !r.safe && listNames[strings.ToLower(r.name)] != ""
}

// carriesList reports whether the dnsbl check can ask a list in place of Postfix.
func (p *planner) carriesList(r restriction) bool {
	return p.attaches(Policyd) && p.runs("dnsbl") && r.arg != "" && !strings.ContainsAny(r.arg, "${}")
}

// keyed matches a zone of the Data Query Service, which begins with the key.
var keyed = regexp.MustCompile(`^([A-Za-z0-9]{16,63})\.([a-z-]+)\.dq\.spamhaus\.net\b(.*)$`)

// findLists notes the lists that Postfix asks about mail from the internet.
func (p *planner) findLists() {
	for _, name := range restrictionLists {
		for _, place := range p.places(p.with(Internet), name) {
			for _, r := range restrictions(p.meantAt(place, name)) {
				if isList(r) && p.carriesList(r) {
					p.lists.addRestriction(r)
				}
			}
		}
	}
}

func (l *lists) addRestriction(r restriction) {
	zone := r.arg
	if m := keyed.FindStringSubmatch(zone); m != nil {
		l.key, zone = m[1], m[2]+".spamhaus.org"+m[3]
	}
	// Without a filter every answer counts, even an error code of the list.
	switch zone {
	case "zen.spamhaus.org":
		zone = "zen.spamhaus.org=127.0.0.[2..11;30]*1"
	case "dbl.spamhaus.org":
		zone = "dbl.spamhaus.org=127.0.1.[2..99]*1"
	}
	if r.is("reject_rbl_client") {
		addOnce(&l.clients, zone)
		return
	}
	addOnce(&l.domains, zone)
	addOnce(&l.names, listNames[strings.ToLower(r.name)])
}

// listSettings plans the lists of the dnsbl check.
func (p *planner) listSettings() {
	l := p.lists
	if len(l.clients) > 0 {
		p.policyd.set("dnsbl", l.clients...)
	}
	if len(l.domains) > 0 {
		p.policyd.set("dbl", l.domains...)
		slices.Sort(l.names)
		p.policyd.set("dbl-names", l.names...)
	}
	if l.key != "" {
		file := filepath.Join(filepath.Dir(p.Policyd.Config), "dqs.key")
		p.policyd.set("dqs-key-file", file)
		p.plan.Files = append(p.plan.Files, File{Path: file, Text: []byte(l.key + "\n"), Mode: 0o600, Owner: p.User, Secret: true})
	}
	if len(l.clients)+len(l.domains) > 0 {
		for _, name := range []string{"default_rbl_reply", "rbl_reply_maps", "maps_rbl_reject_code"} {
			if p.isSet(name) {
				p.cannot("%s = %s: the dnsbl check refuses with 550 and a text of its own (dnsbl-reply)", name, p.main[name])
			}
		}
	}
	if p.screenRefuses() {
		p.warn("postscreen asks DNS lists too (postscreen_dnsbl_sites): what it refuses never gets here")
	}
}

// screenRefuses reports whether postscreen(8) is in front of smtpd and refuses clients by
// DNS lists. Its default is to log them only.
func (p *planner) screenRefuses() bool {
	behind := func(s *Service) bool { return strings.HasSuffix(s.Key, "/pass") }
	return slices.ContainsFunc(p.with(Internet), behind) && strings.Contains(p.value("postscreen_dnsbl_sites"), ".") &&
		!strings.EqualFold(p.value("postscreen_dnsbl_action"), "ignore")
}
