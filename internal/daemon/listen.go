package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// DefaultSocketMode lets the owner and the group of a unix socket connect.
const DefaultSocketMode fs.FileMode = 0o660

// Socket is one endpoint to bind, and how to bind it.
type Socket struct {
	Endpoint
	// Flag is the flag that asked for the socket, such as "--listen". Errors name
	// it, and it distinguishes the listeners of one [Listen].
	Flag string
	// Mode and Group are those of a unix socket; other kinds ignore them (systemd
	// has SocketMode= and SocketGroup=). Mode 0 means DefaultSocketMode. Group is
	// a name or a number; "" means the group of the process.
	Mode  fs.FileMode
	Group string
}

// Listener is a bound socket and where it came from. Closing it removes the
// path of a unix socket that [Listen] made, if it is still that socket.
type Listener struct {
	net.Listener
	Socket Socket
}

// Listen binds every socket before it returns, in order, and serves none. One
// systemd endpoint may have several listeners. A descriptor from systemd that no
// endpoint takes is an error, so a process calls Listen once, with all its
// sockets. On an error everything already bound is closed again. The error names
// the flag, the endpoint and the fix.
func Listen(sockets []Socket) ([]Listener, error) { return ListenAfter(nil, sockets) }

// ListenAfter is Listen for a daemon that takes over: the sockets that its
// predecessor has are inherited instead of bound. p may be nil.
func ListenAfter(p *Predecessor, sockets []Socket) ([]Listener, error) {
	passed, err := takeDescriptors()
	if err != nil {
		return nil, err
	}
	defer passed.close()

	var bound []Listener
	fail := func(s Socket, err error) ([]Listener, error) {
		for _, l := range bound {
			if p.inherits(l.Socket) {
				_ = l.Abandon()
				continue
			}
			_ = l.Close() // the first error is the one to fix
		}
		return nil, fmt.Errorf("%s %s: %w", s.Flag, s.Endpoint, err)
	}
	for i, s := range sockets {
		if repeats(sockets[:i], s.Endpoint) {
			return fail(s, errors.New("the address is given twice"))
		}
		listeners, err := p.claim(s)
		if err == nil && len(listeners) == 0 {
			listeners, err = bind(s, passed, sockets)
		}
		if err != nil {
			return fail(s, err)
		}
		for _, l := range listeners {
			bound = append(bound, Listener{Listener: l, Socket: s})
		}
	}
	if err := passed.unclaimed(); err != nil {
		return fail(Socket{Flag: "--listen", Endpoint: Endpoint{Network: NetworkSystemd}}, err)
	}
	if p != nil {
		p.closeUnclaimed()
	}
	return bound, nil
}

func repeats(earlier []Socket, e Endpoint) bool {
	if _, port, err := net.SplitHostPort(e.Address); e.Network == NetworkTCP && err == nil && port == "0" {
		return false // each gets a port of its own
	}
	for _, s := range earlier {
		if s.Network == e.Network && s.Address == e.Address {
			return true
		}
	}
	return false
}

func bind(s Socket, passed *descriptors, all []Socket) ([]net.Listener, error) {
	switch s.Network {
	case NetworkTCP:
		l, err := listenTCP(s.Address)
		return []net.Listener{l}, err
	case NetworkUnix:
		l, err := listenUnix(s)
		return []net.Listener{l}, err
	case NetworkSystemd:
		return passed.claim(s.Address, all)
	}
	return nil, fmt.Errorf("network %q is not known: %s", s.Network, spellings)
}

func listenTCP(address string) (net.Listener, error) {
	config := net.ListenConfig{KeepAlive: keepAlive(address)}
	l, err := config.Listen(context.Background(), NetworkTCP, address)
	if err == nil {
		return l, nil
	}
	_, port, _ := net.SplitHostPort(address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w: is another instance running? `ss -ltnp 'sport = :%s'` shows it", err, port)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%w: no interface of this machine has the address, see `ip address`", err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%w: ports below 1024 need root or CAP_NET_BIND_SERVICE; take a higher one", err)
	}
	return nil, err
}

// keepAlive returns the default, but none for connections within this machine.
// The kernel reports at once when one of their ends is closed, and setting
// keep-alive needs four system calls for each connection.
func keepAlive(address string) time.Duration {
	if addr, err := netip.ParseAddrPort(address); err == nil && addr.Addr().Unmap().IsLoopback() {
		return -1
	}
	return 0
}
