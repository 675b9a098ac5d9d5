package daemon

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// Conn is a connection that knows when its server drains. Like any net.Conn
// it may be used by several goroutines.
//
// A handler that answers one request after another (policy delegation) calls Idle
// before it waits for a request, and Busy at the first byte of one. Draining, or
// a server that is full, then closes the connection between requests, where the
// client loses nothing. A handler whose client must not be interrupted (a milter)
// calls Greet when the client has shown that it speaks the protocol, and Begin at its
// first command. Draining waits for it, and only before Begin may a server that is full
// close it.
type Conn struct {
	net.Conn
	Socket   Socket // where it was accepted
	draining <-chan struct{}
	room     *room      // in which it takes a place; may be nil
	host     netip.Addr // the peer, if the number of its connections is limited

	state  atomic.Uint32
	since  atomic.Int64 // when it was made or became idle, in nanoseconds since begun
	served bool         // Busy was called; used only by the handler's goroutine
}

// The states of a Conn.
const (
	connBusy    uint32 = iota
	connIdle           // between two requests
	connClosed         // by its server, while no request or session was in it
	connNew            // none of the methods was called
	connUnused         // idle, and no request has come
	connGreeted        // Greet was called, and Begin was not
	connStates         // their number
)

// begun is the zero of the clock of Conn.since.
var begun = time.Now()

// Greet notes that the client speaks the protocol.
func (c *Conn) Greet() { c.state.CompareAndSwap(connNew, connGreeted) }

// Begin marks the connection as the session of a client: its server does not close it
// any more to make room. If it has done so just now, the next read fails.
func (c *Conn) Begin() {
	if !c.state.CompareAndSwap(connGreeted, connBusy) {
		c.state.CompareAndSwap(connNew, connBusy)
	}
}

// Draining is closed when the server begins to drain.
func (c *Conn) Draining() <-chan struct{} { return c.draining }

// Idle marks the connection as idle: draining, or a new connection that finds no
// room, may close it at once. Idle reports false when draining has begun already,
// or when room is needed now. The handler then returns.
func (c *Conn) Idle() bool {
	if c.served && c.room.isWanted() {
		return false
	}
	c.since.Store(int64(time.Since(begun)))
	idle := connUnused
	if c.served {
		idle = connIdle
	}
	// This comes before the check of draining. Idle connections are closed after
	// draining began, so either that code sees this one as idle, or the check
	// below sees that draining began.
	if !c.state.CompareAndSwap(connBusy, idle) && !c.state.CompareAndSwap(connNew, idle) && c.state.Load() == connClosed {
		return false
	}
	if c.room.isWanted() {
		c.room.wake() // connections that wait for room may take the place of this one
	}
	select {
	case <-c.draining:
		return false
	default:
		return true
	}
}

// Busy marks the connection as busy: draining waits for it. Busy reports false
// when draining closed the connection first. The handler then returns.
func (c *Conn) Busy() bool {
	c.served = true
	return c.state.CompareAndSwap(connIdle, connBusy) || c.state.CompareAndSwap(connUnused, connBusy) || c.state.Load() != connClosed
}

// hasAsked reports whether the client has asked for something.
func (c *Conn) hasAsked() bool {
	switch c.state.Load() {
	case connNew, connUnused, connGreeted:
		return false
	}
	return true
}

// age is how long the connection has been idle, or has existed if it is unused.
func (c *Conn) age() time.Duration { return time.Since(begun) - time.Duration(c.since.Load()) }

// closeIfIdle closes the connection if its handler waits for a request.
func (c *Conn) closeIfIdle() bool { return c.closeIf(connIdle) || c.closeIf(connUnused) }

// closeIf closes the connection if it is in this state.
func (c *Conn) closeIf(state uint32) bool {
	if !c.state.CompareAndSwap(state, connClosed) {
		return false
	}
	_ = c.Close() // the handler's Read then returns an error
	return true
}
