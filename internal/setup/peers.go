// The programs that are attached to Postfix today, and which of them we replace.

package setup

import (
	"fmt"
	"slices"
	"strings"
)

// Peer is a program that Postfix asks.
type Peer struct {
	Name     string
	Socket   string   // as Postfix has it, with the spelling normalized
	Where    []string // the parameters that name it
	Replaced bool
	Note     string // what it still does, or why it goes

	kind *kind
	// judgesHosts is set if Postfix asks the policy service about mail of mynetworks too.
	judgesHosts bool
}

// kind is a kind of program that setup recognises.
type kind struct {
	name   string
	milter bool
	by     string // the daemon of ours that replaces it; "" if it stays
	signs  bool
	asked  bool // it is replaced only if --signer or --greylister names Postern
	// is reports whether a socket belongs to the program.
	is func(o *Options, socket string) bool
	// carry plans settings of ours that do what the program's do; nil for nothing.
	carry func(*planner)
	note  string
}

// kinds returns the programs that are recognised. The first match counts.
func kinds() []*kind {
	return []*kind{
		{name: "postgrey", by: Policyd, is: isPostgrey, carry: carryPostgrey, note: "greylists"},
		{name: "policyd-spf", by: Milterd, is: isPolicydSPF, carry: carryPolicydSPF, note: "verifies SPF"},
		{name: "sqlgrey", by: Policyd, asked: true, is: socketIs("inet:127.0.0.1:2501", "sqlgrey"), carry: carrySqlgrey, note: "greylists"},
		{name: "gld", by: Policyd, asked: true, is: socketIs("inet:127.0.0.1:2525"), carry: carryGreylister("gld"), note: "greylists"},
		{name: "milter-greylist", milter: true, by: Policyd, asked: true, is: socketIs("milter-greylist"), carry: carryGreylister("milter-greylist"), note: "greylists"},
		{name: "iRedAPD", is: socketIs("inet:127.0.0.1:7777"), note: "policies of iRedMail"},
		{name: "Dovecot quota", is: socketIs("inet:127.0.0.1:12340", "quota-status"), note: "refuses mail for full mailboxes"},
		{name: "OpenDKIM", milter: true, by: Milterd, signs: true, is: isOpenDKIM, carry: carryOpenDKIM, note: "signs and verifies DKIM"},
		{name: remoteOpenDKIM, milter: true, by: Milterd, signs: true, asked: true, is: isRemoteOpenDKIM, carry: carrySigner(remoteOpenDKIM), note: "signs and verifies DKIM"},
		{name: "dkimpy-milter", milter: true, by: Milterd, signs: true, asked: true, is: socketIs("inet:127.0.0.1:8892", "dkimpy"), carry: carrySigner("dkimpy-milter"), note: "signs and verifies DKIM"},
		{name: "OpenDMARC", milter: true, by: Milterd, is: isOpenDMARC, carry: carryOpenDMARC, note: "verifies DMARC"},
		{name: "rspamd", milter: true, is: isRspamd, note: "filters spam"},
		{name: "spamass-milter", milter: true, is: socketIs("spamass"), note: "filters spam"},
		{name: "ClamAV", milter: true, is: socketIs("clamav", "clamsmtp"), note: "filters viruses"},
		{name: "amavisd-milter", milter: true, is: socketIs("amavis"), note: "filters spam and viruses"},
	}
}

// socketIs returns a function that matches a socket. An inet socket must be equal, the
// path of a unix socket must contain the name.
func socketIs(names ...string) func(*Options, string) bool {
	return func(_ *Options, socket string) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			return socket == name || strings.HasPrefix(socket, "unix:") && !strings.Contains(name, ":") && strings.Contains(socket, name)
		})
	}
}

// findPeers adds every program that Postfix asks to the plan.
func (p *planner) findPeers() {
	for _, at := range append([]*Service{nil}, p.services...) {
		for _, name := range slices.Concat(restrictionLists, p.classes()) {
			if at != nil && !at.has(name) {
				continue
			}
			permitted := false
			for _, r := range restrictions(p.meantAt(at, name)) {
				permitted = permitted || r.is("permit_mynetworks")
				if strings.EqualFold(r.name, "check_policy_service") {
					p.found(at, name, r.arg, false)
				}
				if peer := p.policyPeer(r); peer != nil && !permitted {
					peer.judgesHosts = true
				}
			}
		}
		for _, name := range []string{milterList, localMilters} {
			if at != nil && !at.has(name) {
				continue
			}
			for _, element := range p.milters(at, name) {
				p.found(at, name, element, true)
			}
		}
	}
}

// found adds a parameter that names a socket.
func (p *planner) found(at *Service, name, element string, isMilter bool) {
	socket := endpointOf(element)
	if slices.Contains([]string{normal(p.Policy), normal(p.Verify), normal(p.Sign)}, socket) {
		return
	}
	where := name
	if slices.Contains(p.classes(), name) {
		where = "restriction class " + name
	}
	if at != nil {
		where = at.Key + " " + name
	}
	if peer := p.bySocket(socket); peer != nil {
		addOnce(&peer.Where, where)
		return
	}
	peer := &Peer{Name: "another program", Socket: socket, Where: []string{where}, Note: "stays as it is"}
	for _, k := range kinds() {
		if k.milter == isMilter && k.is(&p.Options, socket) {
			peer.Name, peer.kind, peer.Note = k.name, k, k.note
			break
		}
	}
	p.plan.Peers = append(p.plan.Peers, peer)
}

func (p *planner) peer(name string) *Peer {
	for _, peer := range p.plan.Peers {
		if peer.Name == name {
			return peer
		}
	}
	return nil
}

// choose decides which program signs and which one greylists, and which programs are
// replaced.
func (p *planner) choose() error {
	greylists, signs := p.others()
	var err error
	p.askPerson(p.Greylister, "greylister", "Who greylists", greylists)
	p.askPerson(p.Signer, "signer", "Who signs", signs)
	if p.Greylister, err = pick("greylister", p.Greylister, greylists); err != nil {
		return err
	}
	if p.Signer, err = pick("signer", p.Signer, signs); err != nil {
		return err
	}
	for _, peer := range p.plan.Peers {
		switch {
		case peer.kind == nil || peer.kind.by == "":
		case !p.overlaps(peer):
			peer.Note += "; it stays"
		case p.plan.Shadow:
			peer.Note += "; Postern watches beside it"
		default:
			peer.Replaced = true
			peer.Note += "; Postern does that"
		}
	}
	return nil
}

// askPerson adds a question to the plan, unless a flag answers it or there is no choice.
func (p *planner) askPerson(answer, flag, text string, others []string) {
	if answer == "" && len(others) > 0 {
		p.plan.Asks = append(p.plan.Asks, Question{flag, text, others[0], append([]string{ours}, others...)})
	}
}

// retire records that a unit may be stopped because we do its work.
func (p *planner) retire(unit string) {
	if !p.plan.Shadow {
		p.next("when you are content: systemctl disable --now %s", unit)
	}
}

// keeps reports whether the administrator wants to keep a program that we could
// replace.
func (p *planner) keeps(k *kind) bool {
	return strings.EqualFold(p.Greylister, k.name) || strings.EqualFold(p.Signer, k.name)
}

// overlaps reports whether a program does the same work as a daemon that is attached,
// and the administrator has not asked to keep it.
func (p *planner) overlaps(peer *Peer) bool {
	k := peer.kind
	switch {
	case k == nil || k.by == "" || !p.attaches(k.by) || p.keeps(k):
		return false
	case k.by == Policyd:
		return p.runs("greylist") && p.Greylister == ours
	}
	return !k.asked || p.signs()
}

// replaced returns the programs whose settings are carried over. We replace them or, in
// shadow mode, watch beside them.
func (p *planner) replaced() []*kind {
	var all []*kind
	for _, peer := range p.plan.Peers {
		if p.overlaps(peer) && !slices.Contains(all, peer.kind) {
			all = append(all, peer.kind)
		}
	}
	return all
}

// pick returns the program for a task. This is the one that was asked for; otherwise
// the first of others, which we do not replace; otherwise Postern.
func pick(flag, asked string, others []string) (string, error) {
	known := append([]string{ours}, others...)
	for _, name := range known {
		if strings.EqualFold(name, asked) {
			return name, nil
		}
	}
	if asked != "" {
		return "", fmt.Errorf("--%s %s: no such program is attached here; write one of: %s", flag, asked, strings.Join(known, ", "))
	}
	return known[min(1, len(others))], nil
}

// rivals reports whether an element does the same work as Postern.
func (p *planner) rivals(r restriction) bool {
	if r.is("check_policy_service") {
		peer := p.policyPeer(r)
		return peer != nil && p.overlaps(peer)
	}
	return isList(r) && p.carriesList(r)
}

// replaces reports whether an element is removed because we do its work.
func (p *planner) replaces(r restriction) bool { return !p.plan.Shadow && p.rivals(r) }

// replacesSocket reports whether the milter at a socket is removed.
func (p *planner) replacesSocket(socket string) bool {
	peer := p.bySocket(socket)
	return peer != nil && peer.Replaced
}

func (p *planner) bySocket(socket string) *Peer {
	for _, peer := range p.plan.Peers {
		if peer.Socket == socket {
			return peer
		}
	}
	return nil
}
