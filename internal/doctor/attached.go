package doctor

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/daemon"
)

// checkAttached looks at the targets of the hooks and milters.
func checkAttached(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	if len(f.Hooks) == 0 && !f.usesMilterd() {
		return []Finding{failf("run postern setup, or add the lines of deploy/postfix to main.cf and master.cf", "Postfix asks neither daemon")}
	}
	var found []Finding
	for _, h := range f.Hooks {
		found = appendNew(found, f.hookLeads(h)...)
	}
	for _, h := range f.Foreign {
		at := f.Postfix.place(h.Endpoint, h.Service.Chroot)
		if slices.ContainsFunc(f.milterSockets, func(l Listener) bool { return l.serves(at) }) {
			found = appendNew(found, wrongProtocol(h))
		}
	}
	for _, m := range f.Milters {
		found = appendNew(found, f.milterLeads(m)...)
	}
	for _, d := range f.inUse() {
		found = append(found, f.otherQueue(d)...)
	}
	if len(f.Hooks) == 0 && f.Policyd.wanted() {
		found = append(found, warnf("run postern setup --only policyd, or stop the daemon", "%s runs, and Postfix does not ask it", f.Policyd.Name))
	}
	if !f.usesMilterd() && f.Milterd.wanted() {
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

// hookLeads judges the target of a hook.
func (f *Facts) hookLeads(h Hook) []Finding {
	at := f.Postfix.place(h.Endpoint, h.Service.Chroot)
	if at.network == "" {
		return []Finding{failf("write inet:HOST:PORT or unix:PATH", "%s: %s is no socket as Postfix spells them: smtpd does not start", h.List, h.Endpoint)}
	}
	if slices.ContainsFunc(f.milterSockets, func(l Listener) bool { return l.serves(at) }) {
		return []Finding{wrongProtocol(h)}
	}
	if f.Policyd.SettingsErr != nil || f.policySocket(h) != nil || f.chrootMiss(h.Endpoint, h.Service, f.policySockets) || isElsewhere(at) {
		return nil // the sockets check covers the second case, and the third is on another host
	}
	return []Finding{failf(fmt.Sprintf("write %s there, or add %s to listen in policyd.toml", spellings(f.policySockets), h.Endpoint),
		"%s: %s asks %s, where postern-policyd does not listen (it listens on %s)", h.List, h.Service, h.Endpoint, spellings(f.policySockets))}
}

// milterLeads judges the target of a milter that has an address of ours.
func (f *Facts) milterLeads(m AttachedMilter) []Finding {
	if slices.ContainsFunc(f.policySockets, func(l Listener) bool { return l.serves(m.At) }) {
		return []Finding{failf("name a socket of postern-milterd there (inet:127.0.0.1:10046 verifies, :10047 signs)",
			"%s: milter %s leads to postern-policyd, which does not speak the milter protocol: smtpd greets no client until it gives up", m.where(), m.Endpoint)}
	}
	if m.At.network == "" && looksOurs(m.Endpoint) {
		return []Finding{failf("write inet:HOST:PORT or unix:PATH", "%s: milter %s is no socket as Postfix spells them", m.where(), m.Endpoint)}
	}
	if f.Milterd.SettingsErr != nil || m.Ours != nil || !looksOurs(m.Endpoint) || isElsewhere(m.At) || m.Service != nil && f.chrootMiss(m.Endpoint, m.Service, f.milterSockets) || m.Service == nil && f.chrootMiss(m.Endpoint, f.Postfix.service("cleanup"), f.milterSockets) {
		return nil
	}
	return []Finding{failf(fmt.Sprintf("write %s there, or add %s to listen-verify or listen-sign in milterd.toml", spellings(f.milterSockets), m.Endpoint),
		"%s: milter %s, where postern-milterd does not listen (it listens on %s)", m.where(), m.Endpoint, spellings(f.milterSockets))}
}

// looksOurs reports whether a milter is meant to be ours, because it has a default port
// of milterd or our name.
func looksOurs(endpoint string) bool {
	return strings.HasSuffix(endpoint, ":10046") || strings.HasSuffix(endpoint, ":10047") || hasOurName(endpoint)
}

// hasOurName reports whether the file name of an endpoint has our name. The folder does
// not count: it may hold sockets of other programs.
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

func spellings(sockets []Listener) string {
	var all []string
	for _, l := range sockets {
		all = append(all, l.String())
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}
