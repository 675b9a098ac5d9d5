package daemon

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// WhenFull is what happens to a new connection when there is no room for it.
type WhenFull int

const (
	// Wait lets the new connection wait until another one ends.
	Wait WhenFull = iota
	// CloseIdle closes a connection whose client has asked for nothing, else the
	// one that has been idle for the longest time, see [Conn.Idle]. Its client
	// connects again when it has a request. When all are busy, the next one that
	// becomes idle is closed.
	CloseIdle
	// Refuse closes a connection whose client has asked for nothing, else the new
	// one. Its client learns at once that it gets no answer, and no running session
	// is lost.
	Refuse
)

const (
	// newGrace is how long the client of a new connection may ask for nothing before
	// another one may take its place. In both protocols Postfix sends something at
	// once.
	newGrace = 5 * time.Second
	// greetedGrace is the same after Greet. Postfix greets a milter when an SMTP session
	// begins, and sends the first commands with MAIL. Until then its client may sleep for 5
	// minutes before each command, and may send commands that milters do not get.
	greetedGrace = 30 * time.Minute
	// There is no such grace when more than one in fewUnused places is taken by unused
	// connections. Those of Postfix are unused for a moment only, so they are few.
	fewUnused = 8
)

// Overflow counts the connections that were closed because of the bounds. It may
// be read at any time.
type Overflow struct {
	Closed  atomic.Uint64 // unused or idle, to make room for another
	Refused atomic.Uint64 // new
}

// room is the set of a server's connections, with its bounds.
type room struct {
	mu     sync.Mutex
	freed  sync.Cond // on mu: a connection has ended or become idle, or draining began
	last   bool      // no connection will be added any more
	conns  map[*Conn]struct{}
	hosts  map[netip.Addr]int
	wanted atomic.Int32 // connections that wait for room

	full, hostFull reminder // guarded by mu
}

// otherFiles is how many descriptors a daemon needs for other things than its
// connections: files, table servers and DNS.
const otherFiles = 256

// RoomForConns returns how many connections the process's limit of open files
// allows. The Go runtime has raised it as far as it may.
func RoomForConns() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return 1 << 30
	}
	n := int(limit.Cur)
	return max(n-otherFiles, n/2, 1)
}

// hostOf returns the host to which the bound for one host applies. It returns the
// zero Addr for this machine, because its programs cannot be distinguished.
func (s *server) hostOf(conn net.Conn) netip.Addr {
	tcp, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || s.o.MaxHostConns == 0 {
		return netip.Addr{}
	}
	host := tcp.AddrPort().Addr().Unmap()
	if host.IsLoopback() {
		return netip.Addr{}
	}
	if host.Is6() {
		// All addresses of a /64 count as one host.
		prefix, _ := host.WithZone("").Prefix(64)
		return prefix.Addr()
	}
	return host
}

// admit adds a connection when there is room, or makes room as WhenFull has it.
// It reports false when the connection must be closed.
func (s *server) admit(c *Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	waits := false
	defer func() {
		if waits {
			s.wanted.Add(-1)
		}
	}()
	for {
		hostFull := c.host.IsValid() && s.hosts[c.host] >= s.o.MaxHostConns
		switch {
		case s.isStopped():
			return false
		case c.isSelf(), !hostFull && len(s.conns) < s.o.MaxConns:
			s.conns[c] = struct{}{}
			if c.host.IsValid() {
				s.hosts[c.host]++
			}
			return true
		}
		s.reportFull(c, hostFull)
		made := s.makeRoom(c, hostFull)
		if !made && (hostFull || s.o.WhenFull == Refuse) {
			s.o.Overflow.Refused.Add(1)
			return false
		}
		if !waits && !made && s.o.WhenFull == CloseIdle {
			// All are busy: the first that becomes idle must end. One may have
			// become idle before it could see that.
			waits = true
			s.wanted.Add(1)
			continue
		}
		s.freed.Wait()
	}
}

// makeRoom closes the connection whose client loses least, if there is one. Its
// handler ends soon.
func (s *server) makeRoom(c *Conn, hostFull bool) bool {
	if s.o.WhenFull == Wait {
		return false
	}
	for {
		victim, state := s.leastNeeded(c.host, hostFull)
		if victim == nil {
			return false
		}
		if victim.closeIf(state) {
			s.o.Overflow.Closed.Add(1)
			return true
		}
	}
}

// leastNeeded returns the connection whose client has asked for nothing for the longest
// time, else the one that has been idle for the longest time, and its state. With ofHost
// only connections of that host count.
func (s *server) leastNeeded(host netip.Addr, ofHost bool) (victim *Conn, state uint32) {
	places := s.o.MaxConns
	if ofHost {
		places = s.o.MaxHostConns
	}
	var oldest [connStates]*Conn
	unused := 0
	for c := range s.conns {
		if ofHost && c.host != host || c.isSelf() {
			continue
		}
		state := c.state.Load()
		if state == connNew || state == connUnused {
			unused++
		}
		oldest[state] = older(oldest[state], c)
	}
	many := unused > max(places/fewUnused, 1)
	for _, choice := range []struct {
		state uint32
		grace time.Duration
	}{{connNew, newGrace}, {connUnused, newGrace}, {connGreeted, greetedGrace}, {connIdle, 0}, {connUnused, 0}} {
		c := oldest[choice.state]
		if c != nil && (c.age() >= choice.grace || many && choice.grace == newGrace) {
			return c, choice.state
		}
	}
	return nil, 0
}

// older returns the connection that has been in its state for longer. a may be nil.
func older(a, b *Conn) *Conn {
	if a == nil || b.since.Load() < a.since.Load() {
		return b
	}
	return a
}

// remove removes a connection whose handler has ended.
func (r *room) remove(c *Conn) {
	delete(r.conns, c)
	if c.host.IsValid() {
		if r.hosts[c.host]--; r.hosts[c.host] == 0 {
			delete(r.hosts, c.host)
		}
	}
	r.freed.Broadcast()
}

// isWanted reports whether connections wait for room.
func (r *room) isWanted() bool { return r != nil && r.wanted.Load() > 0 }

// wake wakes all connections that wait for room.
func (r *room) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.freed.Broadcast()
}

// reportFull reports at most once a minute that a bound was reached.
func (s *server) reportFull(c *Conn, hostFull bool) {
	event, due := Event{Kind: ConnsFull, Socket: c.Socket, Conns: s.o.MaxConns}, &s.full
	if hostFull {
		event, due = Event{Kind: HostFull, Socket: c.Socket, Conns: s.o.MaxHostConns, Remote: c.RemoteAddr()}, &s.hostFull
	}
	if !due.due(time.Now()) {
		return
	}
	for other := range s.conns {
		if !other.hasAsked() && (!hostFull || other.host == c.host) {
			event.Unused++
		}
	}
	s.o.Report(event)
}
