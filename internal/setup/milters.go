// The milter daemon in Postfix's lists of milters.

package setup

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/postconf"
)

const (
	milterList    = "smtpd_milters"
	localMilters  = "non_smtpd_milters"
	daemonName    = "milter_macro_daemon_name"
	originating   = "ORIGINATING"
	proxyFilter   = "smtpd_proxy_filter"
	defaultAction = "milter_default_action"
)

// milter formats a socket of the milter daemon for a list. While the daemon is away,
// mail passes.
func milter(endpoint string) string { return "{ " + endpoint + ", default_action=accept }" }

// attachMilters plans the sockets of the milter daemon.
func (p *planner) attachMilters() {
	internet, spared, hosts := p.with(Internet), p.spared(), p.hostsSigned()
	p.bySession = p.signs() && (slices.ContainsFunc(internet, p.logsIn) || slices.ContainsFunc(internet, p.takesOwn) || p.namesInternal() || p.wasBySession())
	for _, place := range p.places(p.unproxied(internet, "verified"), milterList) {
		if p.emptied(place, milterList) {
			continue
		}
		p.set(place, milterList, p.verifyList(place))
	}
	p.attachHosts(hosts)
	p.spare(spared)
	for _, s := range p.services {
		if s.Role != Filter && s.Role != Hosts && s.Role != Local && s.Role != Closed && p.noMilters(s) {
			p.warn("%s: receive_override_options has no_milters there: no milter is asked about its mail, ours neither; take it out", s.Key)
		}
	}
	if !p.signs() {
		p.spareOurs()
		return
	}
	for _, s := range p.unproxied(slices.DeleteFunc(p.with(Users), func(s *Service) bool { return !p.logsIn(s) }), "signed") {
		p.attachSigning(s)
	}
	for _, place := range p.locals() {
		kept := p.keptMilters(p.milters(place, localMilters), p.Verify, p.Sign)
		p.setMilters(place, localMilters, append(kept, milter(p.Sign)))
	}
}

// wasBySession reports whether the settings or our drop-in have the session decide already.
// An earlier run may have had a reason that is gone, such as the networks of OpenDKIM, which
// it took out.
func (p *planner) wasBySession() bool {
	dropIn, _ := os.ReadFile(p.path("/etc/systemd/system/" + milterdUnit + ".d/" + ownDropIn))
	if slices.ContainsFunc(commands("ExecStart", dropIn), func(c string) bool { return strings.Contains(c, "--listen systemd:") }) {
		return true
	}
	own, err := config.ReadDocument(p.Milterd.Config)
	return err == nil && slices.Contains(listed(own, "listen"), p.Verify)
}

// locals returns where mail of this machine has its milters: main.cf (nil), and each
// cleanup(8) with a list of its own.
func (p *planner) locals() []*Service { return append([]*Service{nil}, p.with(Local)...) }

// unproxied returns the services without a filter in front of the queue. A milter at the
// others sees no header and no body, so they get none of ours. done is what their mail lacks.
func (p *planner) unproxied(all []*Service, done string) []*Service {
	behind := func(s *Service) bool { return p.get(s, proxyFilter) != "" }
	rest := slices.DeleteFunc(slices.Clone(all), behind)
	inherits := slices.Contains(p.places(rest, milterList), nil)
	for _, s := range all {
		if !behind(s) {
			continue
		}
		p.warn("%s: smtpd_proxy_filter is set: a milter there sees no header and no body, so that its mail is not %s; with a content_filter in its place it would be", s.Key, done)
		list := p.milters(s, milterList)
		if kept := p.keptMilters(list, p.Verify, p.Sign); !s.has(milterList) && inherits || len(kept) < len(list) {
			p.setMilters(s, milterList, kept)
		}
	}
	return rest
}

// noMilters reports whether a service asks no milter, whatever its list has.
func (p *planner) noMilters(s *Service) bool {
	return slices.Contains(postconf.Split(p.get(s, "receive_override_options")), "no_milters")
}

// spareOurs keeps the mail of users and of this machine away from the socket that
// verifies. There its senders would be judged like strangers, because no one has logged
// in. The socket that signs, of an earlier run, goes too: another program signs.
func (p *planner) spareOurs() {
	p.spare(slices.DeleteFunc(p.with(Users), func(s *Service) bool { return s.has(milterList) }))
	for _, s := range p.with(Users) {
		if list := p.milters(s, milterList); s.has(milterList) {
			if kept := p.keptMilters(list, p.Sign); len(kept) < len(list) {
				p.setMilters(s, milterList, kept)
			}
		}
	}
	for _, place := range p.locals() {
		list := p.milters(place, localMilters)
		if kept := p.keptMilters(list, p.Verify, p.Sign); strings.Contains(p.rawAt(place, localMilters), "$"+milterList) || len(kept) < len(p.keptMilters(list)) {
			p.setMilters(place, localMilters, kept)
		}
	}
}

// signs reports whether our milter signs. In shadow mode it does not.
func (p *planner) signs() bool { return p.Signer == ours }

// findKey says what is left to do if the milter daemon is to sign and has no key.
func (p *planner) findKey() error {
	if !p.signs() || p.plan.Shadow {
		return nil
	}
	settings, err := p.document(p.Milterd.Config)
	if err != nil || settings.Values("dkim-key-table") != nil {
		return err
	}
	folders := settings.Values("dkim-keys")
	if folders == nil {
		folders = p.Milterd.Program.Default("dkim-keys")
	}
	for _, folder := range folders {
		if !filepath.IsAbs(folder) || p.hasKey(folder) { // a bare name is a credential of systemd
			return nil
		}
	}
	p.next("there is no DKIM key, so mail is not signed: postern dkim genkey DOMAIN, then publish what it prints")
	return nil
}

// hasKey reports whether a folder has a DKIM key, or will have one.
func (p *planner) hasKey(folder string) bool {
	if slices.ContainsFunc(p.plan.Files, func(f File) bool { return strings.HasPrefix(f.Path, folder+"/") }) {
		return true
	}
	keys, _ := fs.Glob(os.DirFS(p.path(strings.TrimPrefix(folder, p.Root))), "*/*.private") // the pattern is valid
	return len(keys) > 0
}

// milters returns the list of milters at a place.
func (p *planner) milters(place *Service, name string) []string {
	return postconf.Split(p.meantAt(place, name))
}

// keptMilters returns the elements that stay in a list that gets our socket: those that
// we do not replace.
func (p *planner) keptMilters(list []string, own ...string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(element string) bool {
		at := endpointOf(element)
		return p.replacesSocket(at) || slices.ContainsFunc(own, func(o string) bool { return normal(o) == at })
	})
}

// verifyList returns the list for mail from the internet. Our milter comes first, so
// that the filters after it see its verdicts. In shadow mode it comes last.
func (p *planner) verifyList(place *Service) string {
	list := p.milters(place, milterList)
	kept := p.keptMilters(list, p.Verify)
	at := 0
	if p.plan.Shadow {
		at = len(kept)
	}
	kept = slices.Insert(kept, at, milter(p.Verify))
	return p.spellMilters(place, milterList, kept)
}

// spellMilters formats a list of milters for a place.
func (p *planner) spellMilters(place *Service, name string, list []string) string {
	return p.spellWords(place, name, list, strings.Join(list, ", "))
}

// setMilters plans a list of milters at a place.
func (p *planner) setMilters(place *Service, name string, list []string) {
	p.set(place, name, p.spellMilters(place, name, list))
}

// attachSigning plans the socket that signs at a service. It comes last, so that it
// signs the mail as the other filters leave it.
func (p *planner) attachSigning(s *Service) {
	kept := p.keptMilters(p.milters(s, milterList), p.Verify, p.Sign)
	own := p.Sign
	if p.plan.Shadow {
		own = milter(p.Sign)
	} else if strings.EqualFold(p.get(s, defaultAction), "accept") {
		p.warn("%s = accept: while postern-milterd is away, users' mail leaves unsigned and its From is not checked; postconf -P SERVICE/%[1]s=tempfail has it wait (451)", defaultAction)
	}
	kept = append(kept, own)
	p.setMilters(s, milterList, kept)
	if name := p.get(s, daemonName); !s.has(daemonName) || name == "" {
		p.setService(s, daemonName, originating)
	} else if name != originating {
		p.milterd.addValues("originating", originating, name)
	}
}
