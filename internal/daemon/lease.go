package daemon

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lease is a listener over a socket that may stay open after the lease is closed.
// Clients that connect then wait in the backlog, for the successor or for the
// next lease. When the lease is closed, keep reports whether the socket stays
// open.
type lease struct {
	net.Listener
	keep   func() bool
	closed atomic.Bool
	done   chan struct{}
	once   sync.Once
}

// Lease returns listeners for the same sockets. When such a listener is closed,
// keep is called, and the socket stays open if it reports true.
func Lease(listeners []Listener, keep func(Socket) bool) []Listener {
	leases := make([]Listener, len(listeners))
	for i, l := range listeners {
		setDeadline(l.Listener, time.Time{})
		leases[i] = Listener{Socket: l.Socket, Listener: &lease{
			Listener: l.Listener, done: make(chan struct{}), keep: func() bool { return keep(l.Socket) },
		}}
	}
	return leases
}

// Accept waits for the next connection, until the lease is closed. When the
// socket itself was closed before, the successor has it.
func (l *lease) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if errors.Is(err, net.ErrClosed) {
		<-l.done
	}
	if err != nil && l.closed.Load() {
		return nil, net.ErrClosed
	}
	return conn, err
}

func (l *lease) Close() error {
	var err error
	l.once.Do(func() {
		l.closed.Store(true)
		close(l.done)
		if l.keep() && setDeadline(l.Listener, time.Unix(1, 0)) {
			return
		}
		if err = l.Listener.Close(); errors.Is(err, net.ErrClosed) {
			err = nil // the successor has it
		}
	})
	return err
}

// setDeadline sets the time at which Accept returns, and reports whether it
// could.
func setDeadline(l net.Listener, at time.Time) bool {
	d, ok := l.(interface{ SetDeadline(time.Time) error })
	return ok && d.SetDeadline(at) == nil
}

// SetDeadline implements the method of net.UnixListener.
func (l *unixListener) SetDeadline(at time.Time) error {
	setDeadline(l.Listener, at)
	return nil
}

// file returns a duplicate of the socket's descriptor.
func (l Listener) file() (*os.File, error) {
	inner := l.Listener
	if u, ok := inner.(*unixListener); ok {
		inner = u.Listener
	}
	f, ok := inner.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.New("socket cannot be handed over")
	}
	return f.File()
}

// Abandon closes the listener but does not remove its path, which belongs to the
// successor.
func (l Listener) Abandon() error {
	if u, ok := l.Listener.(*unixListener); ok {
		return u.abandon()
	}
	err := l.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (l *unixListener) abandon() error {
	l.once.Do(func() { l.err = errors.Join(l.Listener.Close(), l.place.close()) })
	return l.err
}
