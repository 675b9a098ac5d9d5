package daemon

import (
	"context"
	"errors"
	"net"
	"sync"
)

// FlagSelf is the flag of the socket over which a daemon asks itself.
const FlagSelf = "self"

// ErrNotServing is the error of [Self.Dial] when nothing is accepted any more.
var ErrNotServing = errors.New("connections are not accepted now")

// Self is a listener to which only this process can connect. Over it the daemon
// checks whether it answers. Its connections are served like all others, but also
// when the server is full.
type Self struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// NewSelf returns a listener for one call of [Serve].
func NewSelf() *Self {
	return &Self{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Listener returns s for [Serve].
func (s *Self) Listener() Listener {
	return Listener{Listener: s, Socket: Socket{Flag: FlagSelf, Endpoint: Endpoint{Network: FlagSelf}}}
}

// Dial connects. It waits until the connection is accepted, or until ctx ends.
func (s *Self) Dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	err := ErrNotServing
	select {
	case s.conns <- theirs:
		return ours, nil
	case <-s.closed:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return nil, errors.Join(err, ours.Close(), theirs.Close())
}

// Accept implements net.Listener.
func (s *Self) Accept() (net.Conn, error) {
	select {
	case conn := <-s.conns:
		return conn, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s *Self) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// Addr implements net.Listener.
func (s *Self) Addr() net.Addr { return selfAddr{} }

type selfAddr struct{}

func (selfAddr) Network() string { return FlagSelf }
func (selfAddr) String() string  { return FlagSelf }

// isSelf reports whether the connection is one of the daemon to itself.
func (c *Conn) isSelf() bool { return c.Socket.Flag == FlagSelf }
