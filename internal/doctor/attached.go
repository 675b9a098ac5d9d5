package doctor

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/internal/setup"
)

// checkAttached looks at the targets of the hooks and milters.
func checkAttached(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	if len(f.Hooks) == 0 && !f.usesMilterd() {
		fix := "run postern setup, or add the lines of deploy/postfix to main.cf and master.cf"
		if setup.JournalsOf(f.Options.paths.journals, f.Postfix.Directory).Attached() {
			return []Finding{failf("run postern setup --apply again", "Postfix in %s asks neither daemon any more: since postern setup attached them, another program has written its files, as an upgrade of an appliance does", f.Postfix.Directory)}
		}
		if others := otherInstances(f.Postfix); len(others) > 0 {
			fix = fmt.Sprintf("if another instance asks them, look at that one (--config-directory %s); if none does, %s", strings.Join(others, " or "), fix)
		}
		return []Finding{failf(fix, "Postfix in %s asks neither daemon", f.Postfix.Directory)}
	}
	var found []Finding
	for _, h := range f.Hooks {
		found = appendNew(found, f.hookLeads(h)...)
		found = appendNew(found, f.otherFamily(h.List, h.Endpoint, f.Postfix.place(h.Endpoint, h.Service.Chroot))...)
	}
	for _, h := range f.Foreign {
		at := f.Postfix.place(h.Endpoint, h.Service.Chroot)
		if slices.ContainsFunc(f.milterSockets, func(l Listener) bool { return l.serves(at) }) {
			found = appendNew(found, wrongProtocol(h))
		}
		if at.network == "" {
			found = appendNew(found, noSocket(h))
		}
	}
	for _, m := range f.Milters {
		found = appendNew(found, f.milterLeads(m)...)
		if m.Ours != nil {
			found = appendNew(found, f.otherFamily(m.where(), m.Endpoint, m.At)...)
		}
	}
	for _, d := range f.inUse() {
		found = append(found, f.otherQueue(d)...)
	}
	alone := len(otherInstances(f.Postfix)) == 0 // else another one may ask
	if len(f.Hooks) == 0 && f.Policyd.wanted() && alone {
		found = append(found, warnf("run postern setup --only policyd, or stop the daemon", "%s runs, and Postfix does not ask it", f.Policyd.Name))
	}
	if !f.usesMilterd() && f.Milterd.wanted() && alone {
		found = append(found, warnf("run postern setup --only milterd, or stop the daemon", "%s runs, and Postfix gives it no mail", f.Milterd.Name))
	}
	return orOK(found, "hooks that lead to %s: %d; milters that lead to %s: %d", f.Policyd.Name, len(f.Hooks), f.Milterd.Name, f.ourMilters())
}

func (f *Facts) ourMilters() (n int) {
	for _, m := range f.Milters {
		if m.Ours != nil {
			n++
		}
	}
	return n
}

// appendNew appends findings, without those that another service has given already.
func appendNew(found []Finding, more ...Finding) []Finding {
	for _, one := range more {
		if !slices.ContainsFunc(found, func(have Finding) bool { return have.Text == one.Text }) {
			found = append(found, one)
		}
	}
	return found
}

// otherQueue looks for a daemon that uses another queue directory than Postfix.
// Relative paths of sockets are below that directory for both.
func (f *Facts) otherQueue(d *Daemon) []Finding {
	theirs, ours := f.Postfix.queueDirectory(), d.text("queue-directory")
	if filepath.Clean(theirs) == filepath.Clean(ours) {
		return nil
	}
	for _, l := range slices.Concat(f.policySockets, f.milterSockets) {
		if l.network == daemon.NetworkUnix && below(l.address, ours) {
			return []Finding{failf(fmt.Sprintf("set queue-directory = %q", theirs),
				"%s makes %s, below its queue-directory, and Postfix's queue_directory is %s", d.Name, l, theirs)}
		}
	}
	return nil
}

func wrongProtocol(h Hook) Finding {
	return failf("name the socket of postern-policyd there (listen, inet:127.0.0.1:10045 by default)",
		"%s: check_policy_service %s leads to postern-milterd, which does not speak the policy protocol: every mail is deferred", h.List, h.Endpoint)
}

// otherFamily looks for an address to which Postfix does not connect, because
// inet_protocols leaves out its family.
func (f *Facts) otherFamily(where, endpoint string, at place) []Finding {
	protocols := f.Postfix.Params["inet_protocols"]
	host, port, err := net.SplitHostPort(at.address)
	if at.network != daemon.NetworkTCP || err != nil || postconf.Speaks(protocols, host) {
		return nil
	}
	other := "[::1]:" + port
	if strings.Contains(host, ":") {
		other = "127.0.0.1:" + port
	}
	return []Finding{failf(fmt.Sprintf("have the daemon listen at %s (ListenStream= of its socket unit, or listen in its settings) and write inet:%s there; or postconf -e 'inet_protocols = all', and restart Postfix", other, other),
		"%s: Postfix does not connect to %s, because inet_protocols is %s", where, endpoint, protocols)}
}

func noSocket(h Hook) Finding {
	return failf("write inet:HOST:PORT or unix:PATH", "%s: %s is no socket as Postfix spells them: smtpd does not start", h.List, h.Endpoint)
}

// hookLeads judges the target of a hook.
func (f *Facts) hookLeads(h Hook) []Finding {
	at := f.Postfix.place(h.Endpoint, h.Service.Chroot)
	if at.network == "" {
		return []Finding{noSocket(h)}
	}
	if slices.ContainsFunc(f.milterSockets, func(l Listener) bool { return l.serves(at) }) {
		return []Finding{wrongProtocol(h)}
	}
	if f.Policyd.SettingsErr != nil || f.policySocket(h) != nil || f.chrootMiss(h.Endpoint, h.Service, f.policySockets) || isElsewhere(at) {
		return nil // the sockets check covers the second case, and the third is on another host
	}
	return []Finding{failf(fmt.Sprintf("write %s there, or %s", f.spellings(f.policySockets), f.Policyd.listenAlso(at, h.Endpoint, "listen in policyd.toml")),
		"%s: %s asks %s, where postern-policyd does not listen (it listens on %s)", h.List, h.Service, h.Endpoint, f.spellings(f.policySockets))}
}

// milterLeads judges the target of a milter that has an address of ours.
func (f *Facts) milterLeads(m AttachedMilter) []Finding {
	if slices.ContainsFunc(f.policySockets, func(l Listener) bool { return l.serves(m.At) }) {
		return []Finding{failf("name a socket of postern-milterd there (inet:127.0.0.1:10046 verifies, :10047 signs)",
			"%s: milter %s leads to postern-policyd, which does not speak the milter protocol: smtpd greets no client until it gives up", m.where(), m.Endpoint)}
	}
	if m.At.network == "" {
		return []Finding{failf("write inet:HOST:PORT or unix:PATH", "%s: milter %s is no socket as Postfix spells them: smtpd does not start, or asks no milter", m.where(), m.Endpoint)}
	}
	if f.Milterd.SettingsErr != nil || m.Ours != nil || !looksOurs(m.Endpoint) || isElsewhere(m.At) || m.Service != nil && f.chrootMiss(m.Endpoint, m.Service, f.milterSockets) || m.Service == nil && f.chrootMiss(m.Endpoint, f.Postfix.localCleanup(), f.milterSockets) {
		return nil
	}
	return []Finding{failf(fmt.Sprintf("write %s there, or %s", f.spellings(f.milterSockets), f.Milterd.listenAlso(m.At, m.Endpoint, "listen-verify or listen-sign in milterd.toml")),
		"%s: milter %s, where postern-milterd does not listen (it listens on %s)", m.where(), m.Endpoint, f.spellings(f.milterSockets))}
}

// missesMilterd reports whether an entry of a milter list is meant to lead to milterd, and
// does not.
func (f *Facts) missesMilterd(m AttachedMilter) bool {
	return len(f.milterLeads(m)) > 0 || m.Ours == nil && f.chrootMiss(m.Endpoint, m.Service, f.milterSockets)
}

// looksOurs reports whether a milter is meant to be ours, because it has a default port
// of milterd or our name.
func looksOurs(endpoint string) bool {
	return strings.HasSuffix(endpoint, ":10046") || strings.HasSuffix(endpoint, ":10047") || hasOurName(endpoint)
}

// hasOurName reports whether an endpoint has our name, and not that of another program: a
// folder of ours may hold sockets of others.
func hasOurName(endpoint string) bool {
	_, another := peerAt(endpoint)
	return !another && strings.Contains(endpoint, "postern")
}

// chrootMiss reports whether an endpoint misses a socket of ours only because the
// service has a chroot.
func (f *Facts) chrootMiss(endpoint string, s *Service, sockets []Listener) bool {
	if s == nil || !s.Chroot {
		return false
	}
	outside := f.Postfix.place(endpoint, false)
	if outside == f.Postfix.place(endpoint, true) {
		return false
	}
	return slices.ContainsFunc(sockets, func(l Listener) bool { return l.serves(outside) })
}

// isElsewhere reports whether a place is on another host.
func isElsewhere(p place) bool {
	host, _, err := net.SplitHostPort(p.address)
	return p.network == daemon.NetworkTCP && err == nil && !isLocal(host) && !isAny(host)
}

// listenAlso returns how to have a daemon listen at one more place. The arguments of our
// units name the sockets of systemd, and settings in files do not count then.
func (d *Daemon) listenAlso(at place, endpoint, setting string) string {
	if !slices.ContainsFunc(d.Args, func(arg string) bool {
		return strings.Contains(arg, daemon.NetworkSystemd+":") || arg == daemon.NetworkSystemd
	}) {
		return fmt.Sprintf("add %s to %s", endpoint, setting)
	}
	var names []string
	for _, u := range d.Sockets {
		if d.named(u) {
			names = append(names, u.Name)
		}
	}
	return fmt.Sprintf("systemctl edit %s, add [Socket] ListenStream=%s, and systemctl restart %s %s", strings.Join(names, " or "), at.address, strings.Join(names, " "), d.Unit.Name)
}

func (f *Facts) spellings(sockets []Listener) string {
	var all []string
	for _, l := range sockets {
		all = append(all, f.Postfix.spell(l.place))
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}
