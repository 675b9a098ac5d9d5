package doctor

import (
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/daemon"
)

// place is where an endpoint of Postfix leads to.
type place struct{ network, address string }

// place returns where a process of Postfix finds an endpoint: in a chroot, every
// path lies below the queue directory.
func (p *Postfix) place(endpoint string, chroot bool) place {
	kind, rest, _ := strings.Cut(endpoint, ":")
	switch kind {
	case "unix", "local":
		if !filepath.IsAbs(rest) || chroot {
			rest = filepath.Join(p.queueDirectory(), rest)
		}
		return place{daemon.NetworkUnix, filepath.Clean(rest)}
	case "inet", "inet6":
		if port, host, ok := strings.Cut(rest, "@"); ok { // as libmilter spells it
			return place{daemon.NetworkTCP, net.JoinHostPort(strings.Trim(host, "[]"), port)}
		}
		if !strings.Contains(rest, ":") {
			rest = "localhost:" + rest
		}
		return place{daemon.NetworkTCP, rest}
	}
	return place{"", endpoint}
}

func (p place) String() string {
	switch p.network {
	case daemon.NetworkTCP:
		return "inet:" + p.address
	case daemon.NetworkUnix:
		return "unix:" + p.address
	}
	return p.address
}

// Listener is a socket that a daemon serves.
type Listener struct {
	place
	Role string // of milterd: roleSign, roleVerify, roleSession
	// Checks are those that the socket is bound to, of policyd; nil for all.
	Checks []string
}

// What a socket of milterd does.
const (
	roleSign    = "sign"
	roleVerify  = "verify"
	roleSession = "session" // the session decides
)

// serves reports whether who connects to p reaches l.
func (l Listener) serves(p place) bool {
	if l.network != p.network || p.network != daemon.NetworkTCP {
		return l.place == p
	}
	host, port, err := net.SplitHostPort(l.address)
	askedHost, askedPort, askedErr := net.SplitHostPort(p.address)
	if err != nil || askedErr != nil || port != askedPort {
		return false
	}
	return host == askedHost || isAny(host) || isLocal(host) && isLocal(askedHost)
}

func isAny(host string) bool { return host == "0.0.0.0" || host == "::" || host == "" }

func isLocal(host string) bool {
	return slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, host)
}

// listeners returns the sockets of a flag. What systemd holds is in its units.
func (d *Daemon) listeners(flag, role, queueDirectory string) []Listener {
	var found []Listener
	for _, spelling := range d.list(flag) {
		e, err := daemon.ParseEndpoint(spelling, queueDirectory)
		if err != nil {
			continue // the settings' own check says so
		}
		if e.Network != daemon.NetworkSystemd {
			found = append(found, Listener{place{e.Network, e.Address}, role, e.Suffix})
			continue
		}
		for _, s := range d.Sockets {
			if e.Address == "" || s.Descriptor == e.Address {
				for _, at := range s.Listen {
					found = append(found, Listener{at, role, e.Suffix})
				}
			}
		}
	}
	return found
}
