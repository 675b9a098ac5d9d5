package daemon

import (
	"net"
	"sync/atomic"
)

// Conn is a connection that knows when its server drains. Like any net.Conn
// it may be used by several goroutines.
//
// A handler that answers one request after another (policy delegation) says
// Idle before it waits for a request and Busy at its first byte; draining then
// closes it between requests, where the client loses nothing. A handler whose client
// must not be left (a milter) calls neither and is waited for.
type Conn struct {
	net.Conn
	Socket   Socket // where it was accepted
	draining <-chan struct{}

	state atomic.Uint32
}

// The states of a Conn.
const (
	connBusy uint32 = iota
	connIdle
	connClosed // by draining, while idle
)

// Draining is closed when the server begins to drain.
func (c *Conn) Draining() <-chan struct{} { return c.draining }

// Idle marks the connection as one that draining closes at once. It reports
// false when draining began already: the handler then returns.
func (c *Conn) Idle() bool {
	// Before the look at draining: what closes idle connections comes after
	// draining began, so one of the two sees the other.
	if !c.state.CompareAndSwap(connBusy, connIdle) && c.state.Load() == connClosed {
		return false
	}
	select {
	case <-c.draining:
		return false
	default:
		return true
	}
}

// Busy marks the connection as one that draining waits for. It reports false when
// draining closed the connection first: the handler then returns.
func (c *Conn) Busy() bool {
	return c.state.CompareAndSwap(connIdle, connBusy) || c.state.Load() != connClosed
}

func (c *Conn) closeIfIdle() {
	if c.state.CompareAndSwap(connIdle, connClosed) {
		_ = c.Close() // its handler sees the error at its Read
	}
}
