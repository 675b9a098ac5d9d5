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
// A handler that answers one request after another (policy delegation) says
// Idle before it waits for a request and Busy at its first byte; draining then
// closes it between requests, where the client loses nothing, and so may a server
// that is full. A handler whose client must not be left (a milter) calls neither
// and is waited for.
type Conn struct {
	net.Conn
	Socket   Socket // where it was accepted
	draining <-chan struct{}
	room     *room      // that it takes a place of; may be nil
	host     netip.Addr // the peer, if connections of one host are bounded for it

	state  atomic.Uint32
	since  atomic.Int64 // when it became idle, in nanoseconds since begun
	served bool         // Busy was said; of the handler's goroutine
}

// The states of a Conn.
const (
	connBusy uint32 = iota
	connIdle
	connClosed // by its server, while idle
	connNew    // nothing was read or said yet
)

// begun is where the clock of Conn.since starts.
var begun = time.Now()

// Read reads, and notes that the client has said something.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.state.Load() == connNew {
		c.state.CompareAndSwap(connNew, connBusy)
	}
	return n, err
}

// Draining is closed when the server begins to drain.
func (c *Conn) Draining() <-chan struct{} { return c.draining }

// Idle marks the connection as one that draining, or a new connection that finds
// no room, closes at once. It reports false when draining began already, or when
// room is needed now: the handler then returns.
func (c *Conn) Idle() bool {
	if c.served && c.room.isWanted() {
		return false
	}
	c.since.Store(int64(time.Since(begun)))
	// Before the look at draining: what closes idle connections comes after
	// draining began, so one of the two sees the other.
	if !c.state.CompareAndSwap(connBusy, connIdle) && !c.state.CompareAndSwap(connNew, connIdle) && c.state.Load() == connClosed {
		return false
	}
	if c.room.isWanted() {
		c.room.wake() // who waits for room may take ours
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
	c.served = true
	return c.state.CompareAndSwap(connIdle, connBusy) || c.state.Load() != connClosed
}

func (c *Conn) closeIfIdle() bool { return c.closeIf(connIdle) }

func (c *Conn) closeIf(state uint32) bool {
	if !c.state.CompareAndSwap(state, connClosed) {
		return false
	}
	_ = c.Close() // its handler sees the error at its Read
	return true
}
