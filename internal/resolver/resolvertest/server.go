// Package resolvertest answers DNS queries from zone text, correctly or with delays
// and faults, for tests and for trying things out.
//
// [Server] listens on loopback over UDP and TCP. [Zone] is a [resolver.Resolver]
// over the same answers without a socket, so that it can be used in a
// testing/synctest bubble; it returns the same as the resolver of the daemons. Both
// answer as a recursive server does. The zone text (RFC 1035 section 5, owner names
// relative to the root) is all of the DNS: other names do not exist. Wildcards and
// empty non-terminals work as in RFC 4592, and CNAME records are followed. Records
// and faults may change while questions come in.
package resolvertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-mail/postern/internal/resolver"
)

// TB is the part of [testing.TB] that is used.
type TB interface {
	Helper()
	Fatal(args ...any)
	Cleanup(func())
}

// Server is a DNS server on 127.0.0.1.
type Server struct {
	authority
	addr      netip.AddrPort
	listeners []*dns.Server // TCP first
	running   sync.WaitGroup
	closing   chan struct{}
	closeOnce sync.Once
}

// New starts a server that ends with the test.
func New(t TB, zoneText string) *Server {
	t.Helper()
	s, err := Start(zoneText)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Start starts a server on a free port of 127.0.0.1.
func Start(zoneText string) (*Server, error) { return StartAt("127.0.0.1:0", zoneText) }

// StartAt starts a server at address, UDP and TCP on the same port. The address
// must be a loopback address.
func StartAt(address, zoneText string) (*Server, error) {
	want, err := netip.ParseAddrPort(address)
	if err != nil || !want.Addr().IsLoopback() {
		return nil, fmt.Errorf("resolvertest: %q is not a loopback address with a port", address)
	}
	s := &Server{closing: make(chan struct{})}
	if err := s.load(zoneText); err != nil {
		return nil, err
	}
	tcp, udp, err := listen(want)
	if err != nil {
		return nil, err
	}
	s.addr = udp.LocalAddr().(*net.UDPAddr).AddrPort()
	s.serve(&dns.Server{Listener: tcp}, "tcp")
	s.serve(&dns.Server{PacketConn: udp}, "udp")
	return s, nil
}

// listen binds both networks to one port. A port that is free for one may be in use
// for the other, so several ports are tried.
func listen(want netip.AddrPort) (net.Listener, *net.UDPConn, error) {
	const attempts = 20
	var last error
	for range attempts {
		tcp, err := net.Listen("tcp", want.String())
		if err != nil {
			return nil, nil, fmt.Errorf("resolvertest: %w", err)
		}
		at := tcp.Addr().(*net.TCPAddr).AddrPort()
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err == nil {
			return tcp, udp, nil
		}
		last = errors.Join(err, tcp.Close())
		if want.Port() != 0 {
			break
		}
	}
	return nil, nil, fmt.Errorf("resolvertest: %w", last)
}

func (s *Server) serve(l *dns.Server, network string) {
	started := make(chan struct{})
	l.NotifyStartedFunc = func() { close(started) }
	l.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.handle(w, q, network) })
	s.listeners = append(s.listeners, l)
	s.running.Go(func() { _ = l.ActivateAndServe() }) // ends with Shutdown
	<-started
}

func (s *Server) handle(w dns.ResponseWriter, q *dns.Msg, network string) {
	packets, delay := s.reply(q, network)
	if delay > 0 {
		late := time.NewTimer(delay)
		defer late.Stop()
		select {
		case <-late.C:
		case <-s.closing:
			return
		}
	}
	for _, p := range packets {
		if _, err := w.Write(p); err != nil {
			return // the asker has gone
		}
	}
}

// RefuseTCP stops listening over TCP.
func (s *Server) RefuseTCP() { _ = s.listeners[0].Shutdown() }

// Addr returns the address as host:port.
func (s *Server) Addr() string { return s.addr.String() }

// Close ends the server and waits for its goroutines. It may be called twice.
func (s *Server) Close() {
	s.closeOnce.Do(func() {
		close(s.closing)
		for _, l := range s.listeners {
			_ = l.Shutdown() // fails only when not started
		}
	})
	s.running.Wait()
}

// Resolver returns a resolver that asks s and trusts its AD bit. It ends with the
// test.
func (s *Server) Resolver(t TB) *resolver.Resolver {
	t.Helper()
	r, err := resolver.New(resolver.Config{Servers: []string{s.Addr()}, TrustAD: loopback()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// Zone is a resolver whose answers come from zone text, in memory. Its
// time-outs are real (2 s a try) outside a synctest bubble; Fail with
// [Unavailable] gives a time-out at once.
type Zone struct {
	*resolver.Resolver
	authority
}

// NewZone returns a resolver without a cache, so that every change is seen at
// once. It ends with the test.
func NewZone(t TB, zoneText string) *Zone {
	t.Helper()
	z, err := StartZone(zoneText)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(z.Close)
	return z
}

// StartZone is NewZone for programs; the caller must Close it.
func StartZone(zoneText string) (*Zone, error) {
	z := &Zone{}
	if err := z.load(zoneText); err != nil {
		return nil, err
	}
	r, err := resolver.New(resolver.Config{
		Servers:    []string{"127.0.0.1"},
		CacheBytes: -1,
		TrustAD:    loopback(),
		Exchange:   z.Exchange,
	})
	z.Resolver = r
	return z, err
}

// Exchange answers one query packet with the last packet of the reply. It is for
// [resolver.Config].Exchange. The server's address is not used.
func (a *authority) Exchange(ctx context.Context, _ netip.AddrPort, network string, query []byte) ([]byte, error) {
	q := new(dns.Msg)
	if err := q.Unpack(query); err != nil {
		return nil, fmt.Errorf("resolvertest: query: %w", err)
	}
	packets, delay := a.reply(q, network)
	if delay > 0 {
		late := time.NewTimer(delay)
		defer late.Stop()
		select {
		case <-late.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if len(packets) == 0 {
		if a.unavailable(q) {
			return nil, context.DeadlineExceeded
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return packets[len(packets)-1], nil
}

func (a *authority) unavailable(q *dns.Msg) bool {
	a.control.Lock()
	defer a.control.Unlock()
	return a.fault(normal(q.Question[0].Name), q.Question[0].Qtype) == Unavailable
}
