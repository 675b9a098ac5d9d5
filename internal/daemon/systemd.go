package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// descriptors are the listening sockets that systemd passed and that no endpoint
// has claimed yet. close closes those that are left.
type descriptors struct {
	passed []descriptor
}

type descriptor struct {
	name     string
	listener net.Listener // nil once claimed
}

// takeDescriptors reads the LISTEN_ variables and removes them, so that no child
// process takes the sockets for its own.
func takeDescriptors() (*descriptors, error) {
	files := activation.Files(true)
	d := &descriptors{}
	for i, f := range files {
		l, err := fileListener(f)
		if err != nil {
			d.close()
			for _, rest := range files[i:] {
				_ = rest.Close()
			}
			return nil, fmt.Errorf("socket %q from systemd: %w", f.Name(), err)
		}
		_ = f.Close() // fileListener made a duplicate
		d.passed = append(d.passed, descriptor{name: f.Name(), listener: l})
	}
	return d, nil
}

// fileListener returns an error for a file whose first Accept would fail.
func fileListener(f *os.File) (net.Listener, error) {
	fd, err := descriptorOf(f)
	if err != nil {
		return nil, err
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	if listening == 0 {
		return nil, errors.New("not a listening socket: the .socket unit needs ListenStream= and Accept=no")
	}
	return net.FileListener(f)
}

// claim returns the sockets called name. With an empty name it returns all that
// no endpoint in all names.
func (d *descriptors) claim(name string, all []Socket) ([]net.Listener, error) {
	var claimed []net.Listener
	for i, p := range d.passed {
		if p.listener == nil || p.name != name && (name != "" || named(all, p.name)) {
			continue
		}
		claimed = append(claimed, p.listener)
		d.passed[i].listener = nil
	}
	if len(claimed) > 0 {
		return claimed, nil
	}
	if len(d.passed) == 0 {
		return nil, errors.New("systemd passed no sockets: start the .socket unit, or listen on inet: or unix: yourself")
	}
	return nil, fmt.Errorf("no such socket among those from systemd: %s; FileDescriptorName= in the .socket unit sets the name", d.names())
}

func named(sockets []Socket, name string) bool {
	for _, s := range sockets {
		if s.Network == NetworkSystemd && s.Address == name {
			return true
		}
	}
	return false
}

// unclaimed returns an error when a socket is left, because clients could connect
// to it and would never get an answer.
func (d *descriptors) unclaimed() error {
	for _, p := range d.passed {
		if p.listener != nil {
			return fmt.Errorf("systemd passed socket %q (%s), which nothing asks for: add systemd:%s, or remove it from the .socket unit",
				p.name, p.listener.Addr(), p.name)
		}
	}
	return nil
}

func (d *descriptors) names() string {
	names := make([]string, len(d.passed))
	for i, p := range d.passed {
		names[i] = p.name
	}
	return strings.Join(names, ", ")
}

func (d *descriptors) close() {
	for _, p := range d.passed {
		if p.listener != nil {
			_ = p.listener.Close()
		}
	}
}
