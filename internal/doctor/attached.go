package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/postconf"
)

// unusedParameter is a name that Postfix does not know, and that begins like one of
// those that matter here.
var unusedParameter = regexp.MustCompile(`unused parameter: ((?:non_)?smtpd_\w+|milter_\w+|postscreen_\w+)=`)

func checkPostfix(ctx context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		fix := "install Postfix, or name its folder with --config-directory"
		if _, err := os.Stat(filepath.Join(f.Options.ConfigDirectory, "main.cf")); err == nil {
			fix = "correct the file; Postfix does not start with it"
		}
		return []Finding{failf(fix, "%v", f.PostfixErr)}
	}
	p := f.Postfix
	var found []Finding
	for _, text := range p.Warnings {
		if m := unusedParameter.FindStringSubmatch(text); m != nil {
			found = append(found, warnf("correct the name, or remove it (postconf -X NAME)", "%s", text))
		}
	}
	if !p.atLeast(3, 0) {
		found = append(found, warnf("upgrade Postfix, or bind checks to sockets of their own (listen = [\"inet:127.0.0.1:10048=ownership\"]) and leave braces out",
			"Postfix %s knows no { } around a policy service or a milter, and no policy_context", p.Params["mail_version"]))
	} else if !p.atLeast(3, 1) && slices.ContainsFunc(f.Hooks, func(h Hook) bool { return len(h.Context) > 0 }) {
		found = append(found, failf("bind checks to sockets of their own: listen = [\"inet:127.0.0.1:10048=ownership\"]",
			"Postfix %s has no policy_context (3.1 and later have)", p.Params["mail_version"]))
	}
	found = append(found, p.malformed()...)
	if p.Params["soft_bounce"] == "yes" {
		found = append(found, warnf("postconf -X soft_bounce", "soft_bounce is yes: every refusal becomes a deferral, ours too"))
	}
	if !p.runs() {
		found = append(found, warnf("systemctl start postfix, or postfix -c "+p.Directory+" start", "Postfix is not running"))
	}
	if others := otherInstances(p); len(others) > 0 {
		found = append(found, okf("Postfix %s in %s; other instances have to be looked at one by one with --config-directory: %s",
			p.Params["mail_version"], p.Directory, strings.Join(others, ", ")))
	}
	return orOK(found, "Postfix %s in %s", p.Params["mail_version"], p.Directory)
}

// malformed finds lists with which smtpd does not start, and postconf does not mind.
func (p *Postfix) malformed() []Finding {
	var found []Finding
	for _, s := range p.smtpds() {
		for _, list := range append([]string{"smtpd_milters", "non_smtpd_milters"}, restrictionLists...) {
			text := s.Value(list)
			words := postconf.Split(text)
			switch {
			case !isBalanced(text):
				found = appendNew(found, failf("close every brace in "+list, "%s: a brace is not closed: smtpd does not start", list))
			case len(words) > 0 && strings.EqualFold(words[len(words)-1], "check_policy_service"):
				found = appendNew(found, failf("name a socket behind it: inet:HOST:PORT or unix:PATH", "%s: nothing follows check_policy_service: smtpd does not start", list))
			}
		}
	}
	return found
}

// runs reports whether master(8) runs, as far as can be told: it holds a lock.
func (p *Postfix) runs() bool {
	file, err := os.Open(filepath.Join(p.queueDirectory(), p.Params["process_id_directory"], "master.pid"))
	if err != nil {
		return true // never started, or not ours to look at
	}
	defer file.Close() // and with it the lock
	return syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

func otherInstances(p *Postfix) []string {
	return slices.DeleteFunc(postconf.Split(p.Params["multi_instance_directories"]), func(dir string) bool { return filepath.Clean(dir) == filepath.Clean(p.Directory) })
}

// checkAttached looks at where the hooks and milters lead.
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

// appendNew leaves out what was found for another service already.
func appendNew(found []Finding, more ...Finding) []Finding {
	for _, one := range more {
		if !slices.ContainsFunc(found, func(have Finding) bool { return have.Text == one.Text }) {
			found = append(found, one)
		}
	}
	return found
}

// otherQueue: relative paths of sockets lie below the queue directory, for Postfix and
// for the daemons.
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

// hookLeads judges where a hook leads.
func (f *Facts) hookLeads(h Hook) []Finding {
	at := f.Postfix.place(h.Endpoint, h.Service.Chroot)
	if at.network == "" {
		return []Finding{failf("write inet:HOST:PORT or unix:PATH", "%s: %s is no socket as Postfix spells them: smtpd does not start", h.List, h.Endpoint)}
	}
	if slices.ContainsFunc(f.milterSockets, func(l Listener) bool { return l.serves(at) }) {
		return []Finding{wrongProtocol(h)}
	}
	if f.Policyd.SettingsErr != nil || f.policySocket(h) != nil || f.chrootMiss(h.Endpoint, h.Service, f.policySockets) || isElsewhere(at) {
		return nil // sockets looks at the second, and the third is on another host
	}
	return []Finding{failf(fmt.Sprintf("write %s there, or add %s to listen in policyd.toml", spellings(f.policySockets), h.Endpoint),
		"%s: %s asks %s, where postern-policyd does not listen (it listens on %s)", h.List, h.Service, h.Endpoint, spellings(f.policySockets))}
}

// milterLeads judges where a milter of ours, by its address, leads.
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

// looksOurs reports whether a milter is meant to be ours, by the ports that ours has by
// default or by its name.
func looksOurs(endpoint string) bool {
	return strings.HasSuffix(endpoint, ":10046") || strings.HasSuffix(endpoint, ":10047") || strings.Contains(endpoint, "postern")
}

// chrootMiss reports whether an endpoint would lead to a socket of ours if the
// service had no chroot.
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

// dialled is one place that a process of Postfix connects to.
type dialled struct {
	endpoint, what string // as Postfix spells it; the service and its program
	at             place
	chroot, missed bool   // missed: it would be there without the chroot
	daemon         string // whose it is
}

// dials are all places of ours that Postfix connects to, each once.
func (f *Facts) dials() []dialled {
	var all []dialled
	add := func(d dialled) {
		if !slices.ContainsFunc(all, func(have dialled) bool { return have.at == d.at && have.missed == d.missed }) {
			all = append(all, d)
		}
	}
	for _, h := range f.Hooks {
		at := f.Postfix.place(h.Endpoint, h.Service.Chroot)
		missed := f.chrootMiss(h.Endpoint, h.Service, f.policySockets)
		if f.policySocket(h) != nil || missed || isElsewhere(at) {
			add(dialled{h.Endpoint, "smtpd of " + h.Service.String(), at, h.Service.Chroot, missed, f.Policyd.Name})
		}
	}
	for _, m := range f.Milters {
		s, what := m.Service, ""
		if s == nil {
			s, what = f.Postfix.service("cleanup"), "cleanup"
		} else {
			what = "smtpd of " + s.String()
		}
		missed := f.chrootMiss(m.Endpoint, s, f.milterSockets)
		if m.Ours != nil || missed || isElsewhere(m.At) && looksOurs(m.Endpoint) {
			add(dialled{m.Endpoint, what, m.At, s != nil && s.Chroot, missed, f.Milterd.Name})
		}
	}
	return all
}

// checkSockets connects to each socket with the rights of Postfix's processes.
func checkSockets(ctx context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	var found []Finding
	dials := f.dials()
	for _, d := range dials {
		if d.missed {
			name := filepath.Base(d.at.address)
			found = append(found, failf(fmt.Sprintf("listen on unix:postern/%s, which lies below %s, and write unix:postern/%s in Postfix (or n in the chroot column of master.cf)", name, f.Postfix.queueDirectory(), name),
				"%s runs in a chroot and looks for %s at %s, where there is nothing", d.what, d.endpoint, d.at.address))
			continue
		}
		if err := f.connect(ctx, d.at); err != nil {
			found = append(found, f.unreachable(d, err))
		}
	}
	return orOK(found, "smtpd and cleanup reach all %d sockets", len(dials))
}

// connect tries a place as Postfix does, or as whoever runs the command.
func (f *Facts) connect(ctx context.Context, at place) error {
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.ask)
	defer cancel()
	if f.Owner == nil || !isRoot() || at.network == daemon.NetworkTCP {
		conn, err := new(net.Dialer).DialContext(ctx, at.network, at.address)
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	return connects(ctx, *f.Owner, at)
}

// unreachable says why a socket cannot be connected to.
func (f *Facts) unreachable(d dialled, err error) Finding {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return failf(fmt.Sprintf("set socket-group = %q and socket-mode = \"0660\" (or SocketGroup= and SocketMode= of the unit), and let user %s into the folder", f.group(), f.Postfix.Params["mail_owner"]),
			"%s may not connect to %s: %s", d.what, d.at, denial(d.at.address))
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return failf("systemctl start "+strings.TrimPrefix(d.daemon, "")+", or start it by hand; its log says why it is not there",
			"%s: no one listens at %s, which is %s's", d.what, d.at, d.daemon)
	}
	return failf("start "+d.daemon+" and look at its log", "%s cannot connect to %s: %v", d.what, d.at, err)
}

// group is that of Postfix's processes.
func (f *Facts) group() string {
	if group := f.Postfix.Params["mail_owner"]; group != "" {
		return group
	}
	return "postfix"
}

// denial names what denies the way to a socket.
func denial(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	uid, gid := owner(info)
	return fmt.Sprintf("it belongs to uid %d, gid %d, mode %04o, in %s", uid, gid, info.Mode().Perm(), folder(filepath.Dir(path)))
}

func folder(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return path
	}
	uid, gid := owner(info)
	return fmt.Sprintf("%s (uid %d, gid %d, mode %04o)", path, uid, gid, info.Mode().Perm())
}

func owner(info fs.FileInfo) (uid, gid uint32) {
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		return sys.Uid, sys.Gid
	}
	return 0, 0
}
