package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/postern-mail/postern/internal/daemon"
)

// dialled is a place that a process of Postfix connects to.
type dialled struct {
	endpoint, what string // as Postfix spells it; the service and its program
	at             place
	chroot, missed bool   // missed: the socket would be found without the chroot
	daemon         string // the daemon that it belongs to
}

// dials returns all places of our daemons that Postfix connects to, each once.
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
			s, what = f.Postfix.localCleanup(), "cleanup"
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
	if len(dials) == 0 {
		return []Finding{okf("Postfix connects to no socket of ours")}
	}
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

// connect connects to a place with Postfix's rights or, without root, with those of the
// command's user.
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

// unreachable returns the finding for a socket that cannot be connected to.
func (f *Facts) unreachable(d dialled, err error) Finding {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return failf(fmt.Sprintf("set socket-group = %q and socket-mode = \"0660\" (or SocketGroup= and SocketMode= of the unit), and let user %s into the folder", f.group(), f.Postfix.Params["mail_owner"]),
			"%s may not connect to %s: %s", d.what, d.at, denial(d.at.address))
	case errors.Is(err, syscall.ECONNREFUSED) && d.at.network == daemon.NetworkTCP && f.runs(d.daemon):
		return failf(fmt.Sprintf("write the address where it listens: %s", f.listensAt(d.daemon)), "%s: no one listens at %s, and %s runs", d.what, d.at, d.daemon)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return failf("systemctl start "+d.daemon+", or start it by hand; its log says why it is not there",
			"%s: no one listens at %s, which is %s's", d.what, d.at, d.daemon)
	}
	return failf("start "+d.daemon+" and look at its log", "%s cannot connect to %s: %v", d.what, d.at, err)
}

// runs reports whether a daemon runs.
func (f *Facts) runs(name string) bool {
	return name == f.Policyd.Name && f.Policyd.Running || name == f.Milterd.Name && f.Milterd.Running
}

// listensAt returns the sockets of a daemon.
func (f *Facts) listensAt(name string) string {
	if name == f.Policyd.Name {
		return f.spellings(f.policySockets)
	}
	return f.spellings(f.milterSockets)
}

// group returns the group of Postfix's processes.
func (f *Facts) group() string {
	if group := f.Postfix.Params["mail_owner"]; group != "" {
		return group
	}
	return "postfix"
}

// denial returns the owner and mode of a socket and of its folder.
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
