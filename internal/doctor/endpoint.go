package doctor

import (
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/daemon"
)

// place is the network and address of an endpoint.
type place struct{ network, address string }

// place returns where a process of Postfix finds an endpoint. In a chroot, every path
// is below the queue directory.
func (p *Postfix) place(endpoint string, chroot bool) place {
	kind, rest, _ := strings.Cut(endpoint, ":")
	switch kind {
	case "unix", "local":
		if !filepath.IsAbs(rest) || chroot {
			rest = filepath.Join(p.queueDirectory(), rest)
		}
		return place{daemon.NetworkUnix, filepath.Clean(rest)}
	case "inet":
		if strings.Contains(rest, "@") { // libmilter's spelling, with which smtpd ends
			return place{"", endpoint}
		}
		if !strings.Contains(rest, ":") {
			rest = "localhost:" + rest
		}
		return place{daemon.NetworkTCP, rest}
	}
	return place{"", endpoint}
}

// spell returns a place as Postfix has it. A path below the queue directory is relative, so
// that processes in a chroot find it too.
func (p *Postfix) spell(at place) string {
	if at.network == daemon.NetworkUnix && below(at.address, p.queueDirectory()) {
		if rest, err := filepath.Rel(p.queueDirectory(), at.address); err == nil {
			at.address = rest
		}
	}
	return at.String()
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

// Listener is a socket that a daemon listens on.
type Listener struct {
	place
	Role string // of milterd: roleSign, roleVerify, roleSession
	// Checks are the checks that a socket of policyd is limited to; nil for all.
	Checks []string
}

// The roles of milterd's sockets.
const (
	roleSign    = "sign"
	roleVerify  = "verify"
	roleSession = "session" // the session decides
)

// serves reports whether a client that connects to p reaches l.
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

// listeners returns the sockets of a flag. Sockets that systemd opens are found in its
// units.
func (d *Daemon) listeners(flag, role, queueDirectory string) []Listener {
	var found []Listener
	for _, spelling := range d.list(flag) {
		e, err := daemon.ParseEndpoint(spelling, queueDirectory)
		if err != nil {
			continue // the check of the settings reports this
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
