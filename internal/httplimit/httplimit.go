// Package httplimit serves HTTP on a bounded number of connections, so that one client
// cannot keep the others out.
//
// When all places are taken, a new connection takes the place of one that is not being
// answered: it has sent nothing, an incomplete request, or waits for its next request.
// The client with the most of these connections loses the one that has been so for the
// longest time. So a client that fills all places only displaces itself.
//
// When all connections are being answered, a client that has at least two more of them
// than the new one's client loses the longest of its answers: it may be one that does not
// read. If there is no such client, the new connection is closed. Clients on this machine
// cannot be distinguished: one of them that does not read can keep the others out, until
// the server's WriteTimeout.
//
// A handler should therefore end the connection of a request that it refuses
// ("Connection: close"), so that it is soon answered.
package httplimit

import (
	"context"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Serve answers on ln, which it owns from now on, with at most limit connections at a
// time. It uses ConnContext and Handler of the server, which must not be served twice,
// and returns what the server's Serve returns.
func Serve(server *http.Server, ln net.Listener, limit int) error {
	l := &listener{Listener: ln, limit: limit, conns: make(map[*conn]struct{}, limit), log: server.ErrorLog}
	if l.log == nil {
		l.log = log.Default()
	}
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}
	next := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*conn); ok {
			l.answering(c, true)
			defer l.answering(c, false)
		}
		next.ServeHTTP(w, r)
	})
	return server.Serve(l)
}

// connKey is the key of the connection in the context of a request. net/http has no other
// way from a request to its connection.
type connKey struct{}

// listener accepts connections and closes those beyond the limit.
type listener struct {
	net.Listener
	limit int
	log   *log.Logger

	mu       sync.Mutex
	conns    map[*conn]struct{}
	reported time.Time
}

// conn is a connection with what decides whether it keeps its place.
type conn struct {
	net.Conn
	in     *listener
	client netip.Addr // the zero Addr for clients on this machine, which cannot be distinguished

	// Guarded by in.mu.
	answered bool      // a handler is running
	since    time.Time // since when answered has its value
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: raw, in: l, client: clientOf(raw.RemoteAddr()), since: time.Now()}
		admitted, victim := l.admit(c)
		if victim != nil {
			_ = victim.Conn.Close() // its server notices, and closes it again
		}
		if admitted {
			return c, nil
		}
		_ = raw.Close() // nothing was sent
	}
}

// clientOf returns the client to which an address belongs: of IPv6, its /64.
func clientOf(remote net.Addr) netip.Addr {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	switch {
	case addr.IsLoopback():
		return netip.Addr{}
	case addr.Is6():
		prefix, _ := addr.Prefix(64) // an IPv6 address has one
		return prefix.Addr()
	}
	return addr
}

// admit gives a connection a place. victim is the connection that has lost its place.
func (l *listener) admit(c *conn) (admitted bool, victim *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) >= l.limit {
		if victim = l.leastNeeded(); victim == nil {
			victim = l.unfair(c.client)
		}
		if l.report(c, victim); victim == nil {
			return false, nil
		}
		delete(l.conns, victim)
	}
	l.conns[c] = struct{}{}
	return true, victim
}

// leastNeeded returns the connection that loses its place, or nil if all are being answered.
func (l *listener) leastNeeded() (victim *conn) {
	waiting := make(map[netip.Addr]int)
	for c := range l.conns {
		if !c.answered {
			waiting[c.client]++
		}
	}
	for c := range l.conns {
		if c.answered {
			continue
		}
		if victim == nil || waiting[c.client] > waiting[victim.client] ||
			waiting[c.client] == waiting[victim.client] && c.since.Before(victim.since) {
			victim = c
		}
	}
	return victim
}

// unfair returns the longest answer of the client that has the most connections, if it has
// at least two more than another client; otherwise nil. All are being answered.
func (l *listener) unfair(other netip.Addr) (victim *conn) {
	has := make(map[netip.Addr]int)
	for c := range l.conns {
		has[c.client]++
	}
	for c := range l.conns {
		if has[c.client] < has[other]+2 {
			continue
		}
		if victim == nil || has[c.client] > has[victim.client] || has[c.client] == has[victim.client] && c.since.Before(victim.since) {
			victim = c
		}
	}
	return victim
}

// report logs at most once a minute that the limit was reached.
func (l *listener) report(c, victim *conn) {
	now := time.Now()
	if now.Sub(l.reported) < time.Minute {
		return
	}
	l.reported = now
	switch {
	case victim == nil:
		l.log.Printf("%s: all %d connections are being answered: closed a new one from %s", l.Addr(), l.limit, c.RemoteAddr())
	case victim.answered:
		l.log.Printf("%s: all %d connections are being answered: closed the longest answer of %s, which has the most", l.Addr(), l.limit, victim.RemoteAddr())
	default:
		l.log.Printf("%s: all %d connections are in use: closed one from %s that was not being answered", l.Addr(), l.limit, victim.RemoteAddr())
	}
}

func (l *listener) answering(c *conn, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.answered, c.since = yes, time.Now()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.in.mu.Lock()
	delete(c.in.conns, c)
	c.in.mu.Unlock()
	return c.Conn.Close()
}
