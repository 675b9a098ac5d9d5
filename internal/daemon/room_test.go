package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// Above the bound the connection that has been idle longest makes room at once;
// one that is being answered does not.
func TestServeClosesLongestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		var heard events
		var overflow Overflow
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{
			MaxConns: 3, WhenFull: CloseIdle, DrainTimeout: time.Hour, Report: heard.report, Overflow: &overflow, Handler: echo,
		})
		ask := func(conn net.Conn) {
			t.Helper()
			write(t, conn, "x\n")
			read(t, conn, "unix x\n")
		}
		first, second, busy := l.dial(t), l.dial(t), l.dial(t)
		for _, conn := range []net.Conn{first, second, busy} {
			ask(conn)
			synctest.Wait()
			time.Sleep(time.Second)
		}
		ask(first) // second has been idle longest now
		write(t, busy, "x")
		synctest.Wait()
		time.Sleep(time.Second)
		fourth := l.dial(t)
		ask(fourth)
		wantClosed(t, second)
		time.Sleep(time.Second)
		fifth := l.dial(t)
		ask(fifth)
		wantClosed(t, first)
		write(t, busy, "\n")
		read(t, busy, "unix x\n")
		heard.want(t, ConnsFull)
		if closed, refused := overflow.Closed.Load(), overflow.Refused.Load(); closed != 2 || refused != 0 {
			t.Errorf("%d closed, %d refused", closed, refused)
		}
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// When all are busy, a new connection waits for one answer and no longer.
func TestServeMakesRoomBehindAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{MaxConns: 1, WhenFull: CloseIdle, DrainTimeout: time.Hour, Handler: echo})
		busy := l.dial(t)
		synctest.Wait()
		write(t, busy, "x")
		synctest.Wait()
		waiting := l.dial(t)
		synctest.Wait()
		write(t, busy, "\n")
		read(t, busy, "unix x\n")
		wantClosed(t, busy)
		write(t, waiting, "y\n")
		read(t, waiting, "unix y\n")
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// A connection that becomes idle for the first time while another one waits makes
// room too.
func TestServeTakesTheFirstIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		gate := make(chan struct{})
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{
			MaxConns: 1, WhenFull: CloseIdle, DrainTimeout: time.Hour,
			Handler: func(ctx context.Context, c *Conn) { <-gate; echo(ctx, c) },
		})
		first := l.dial(t)
		synctest.Wait()
		second := l.dial(t)
		synctest.Wait()
		close(gate)
		wantClosed(t, first)
		write(t, second, "y\n")
		read(t, second, "unix y\n")
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// ask sends a request to echo, and waits until the connection is idle again.
func ask(t *testing.T, conn net.Conn) {
	t.Helper()
	write(t, conn, "x\n")
	read(t, conn, "unix x\n")
	synctest.Wait()
}

// Connections without a request make room before those that have had one, which Postfix
// keeps for the next request.
func TestServeKeepsTheUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		const most, used = 24, 16
		var heard events
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{MaxConns: most, WhenFull: CloseIdle, DrainTimeout: time.Hour, Report: heard.report, Handler: echo})
		var kept []net.Conn
		for range used {
			kept = append(kept, l.dial(t))
			ask(t, kept[len(kept)-1])
		}
		time.Sleep(time.Hour)
		for range 3 * most {
			l.dial(t)
			synctest.Wait()
		}
		next := l.dial(t)
		ask(t, next)
		next.Close()
		for _, conn := range kept {
			ask(t, conn)
		}
		if event := heard.list[0]; event.Kind != ConnsFull || event.Unused != most-used {
			t.Errorf("%+v", event)
		}
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// A connection that was made just now may wait for its first request, if few do.
func TestServeSparesTheNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{MaxConns: 2, WhenFull: CloseIdle, DrainTimeout: time.Hour, Handler: echo})
		used, fresh := l.dial(t), l.dial(t)
		ask(t, used)
		third := l.dial(t)
		ask(t, third)
		wantClosed(t, used)
		time.Sleep(newGrace)
		ask(t, l.dial(t))
		wantClosed(t, fresh)
		ask(t, third)
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// hold is a handler whose connection is a session from the first octet on: it never
// calls Idle.
func hold(_ context.Context, c *Conn) {
	buf := make([]byte, 1)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
		c.Begin()
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

// A server of sessions refuses new ones at once and closes none, except one whose
// client has never sent anything.
func TestServeRefusesAboveTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		var heard events
		var overflow Overflow
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{
			MaxConns: 2, WhenFull: Refuse, DrainTimeout: 0, Report: heard.report, Overflow: &overflow, Handler: hold,
		})
		session, silent := l.dial(t), l.dial(t)
		write(t, session, "x")
		read(t, session, "x")
		synctest.Wait()
		wantClosed(t, l.dial(t))
		time.Sleep(newGrace)
		next := l.dial(t)
		write(t, next, "y")
		read(t, next, "y")
		wantClosed(t, silent)
		time.Sleep(time.Hour)
		wantClosed(t, l.dial(t))
		write(t, session, "z")
		read(t, session, "z")
		if closed, refused := overflow.Closed.Load(), overflow.Refused.Load(); closed != 1 || refused != 2 {
			t.Errorf("%d closed, %d refused", closed, refused)
		}
		heard.want(t, ConnsFull, ConnsFull) // an hour apart
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// A client that has greeted may be silent for long, because that of Postfix is. When it
// has been, it makes room.
func TestServeSessionsThatOnlyGreet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{MaxConns: 2, WhenFull: Refuse, DrainTimeout: 0, Handler: func(ctx context.Context, c *Conn) {
			_, _ = c.Read(make([]byte, 1))
			c.Greet()
			hold(ctx, c)
		}})
		first, second := l.dial(t), l.dial(t)
		write(t, first, "g")
		write(t, second, "g")
		time.Sleep(greetedGrace - time.Second)
		wantClosed(t, l.dial(t))
		write(t, first, "x")
		read(t, first, "x")
		time.Sleep(time.Second)
		next := l.dial(t)
		write(t, next, "gx")
		read(t, next, "x")
		wantClosed(t, second)
		write(t, first, "y")
		read(t, first, "y")
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// Sessions that have not begun make room at once when they are many.
func TestServeSessionsThatDoNotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		const most, begun = 16, 8
		var overflow Overflow
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{MaxConns: most, WhenFull: Refuse, DrainTimeout: 0, Overflow: &overflow, Handler: hold})
		alive := func(conn net.Conn) {
			t.Helper()
			write(t, conn, "x")
			read(t, conn, "x")
		}
		var sessions []net.Conn
		for range begun {
			sessions = append(sessions, l.dial(t))
			alive(sessions[len(sessions)-1])
		}
		for range 10 * most {
			l.dial(t)
			synctest.Wait()
		}
		for range most {
			next := l.dial(t)
			alive(next)
			next.Close()
			l.dial(t)
			synctest.Wait()
		}
		for _, conn := range sessions {
			alive(conn)
		}
		if refused := overflow.Refused.Load(); refused != 0 {
			t.Errorf("%d refused", refused)
		}
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// from is a connection of a host.
type from struct {
	net.Conn
	addr netip.Addr
}

func (f from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.addr, 1)) }

func (l *fakeListener) dialFrom(t *testing.T, host string) net.Conn {
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close() })
	l.accepts <- from{server, netip.MustParseAddr(host)}
	return client
}

// One host cannot take the places of the others. There is no such bound for this
// machine.
func TestServeBoundsEachHost(t *testing.T) {
	for _, when := range []WhenFull{CloseIdle, Refuse} {
		synctest.Test(t, func(t *testing.T) {
			l := newFakeListener()
			var heard events
			stop, served := serving(t.Context(), l.listeners(), ServeOptions{
				MaxConns: 10, MaxHostConns: 2, WhenFull: when, DrainTimeout: 0, Report: heard.report, Handler: hold,
			})
			alive := func(conn net.Conn) {
				t.Helper()
				write(t, conn, "x")
				read(t, conn, "x")
			}
			for range 2 {
				alive(l.dialFrom(t, "192.0.2.1"))
				alive(l.dialFrom(t, "2001:db8::1"))
			}
			wantClosed(t, l.dialFrom(t, "192.0.2.1"))
			wantClosed(t, l.dialFrom(t, "::ffff:192.0.2.1"))
			wantClosed(t, l.dialFrom(t, "2001:db8::2"))
			for range 3 {
				alive(l.dialFrom(t, "127.0.0.1"))
			}
			alive(l.dialFrom(t, "192.0.2.2"))
			heard.want(t, HostFull)
			stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// The place of a host is free again when its connection ends.
func TestServeForgetsHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{MaxHostConns: 1, WhenFull: Refuse, DrainTimeout: 0, Handler: hold})
		for range 3 {
			conn := l.dialFrom(t, "192.0.2.1")
			write(t, conn, "x")
			read(t, conn, "x")
			conn.Close()
			synctest.Wait()
		}
		if err := (func() error { stop(); return <-served })(); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
}
