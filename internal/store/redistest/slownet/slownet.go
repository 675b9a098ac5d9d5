// Package slownet is a slow network between a client and a server, for tests.
package slownet

import (
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy passes connections on to a server. What the server sends is late.
type Proxy struct {
	Addr     string // to which clients connect
	server   string
	listener net.Listener
	min, max atomic.Int64 // of the delay, in nanoseconds
	mu       sync.Mutex
	open     map[net.Conn]struct{} // nil after Close
	serving  sync.WaitGroup
}

// Start starts a proxy before the server at a TCP address. Nothing is late at first.
func Start(server string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: l.Addr().String(), server: server, listener: l, open: make(map[net.Conn]struct{})}
	p.serving.Go(p.accept)
	return p, nil
}

// SetDelay makes all that the server sends late by between min and max.
func (p *Proxy) SetDelay(min, max time.Duration) {
	p.min.Store(int64(min))
	p.max.Store(int64(max))
}

// Close ends all connections.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.mu.Lock()
	for conn := range p.open {
		_ = conn.Close()
	}
	p.open = nil
	p.mu.Unlock()
	p.serving.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil || !p.keep(client, server) {
			_ = client.Close()
			continue
		}
		p.serving.Go(func() { p.pass(server, client, func() {}) })
		p.serving.Go(func() { p.pass(client, server, p.wait) })
	}
}

// keep notes the connections. It closes the one to the server if the proxy is closed.
func (p *Proxy) keep(client, server net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		_ = server.Close()
		return false
	}
	p.open[client], p.open[server] = struct{}{}, struct{}{}
	return true
}

func (p *Proxy) wait() {
	least, most := p.min.Load(), p.max.Load()
	if most > 0 {
		time.Sleep(time.Duration(least + rand.Int64N(max(most-least, 1))))
	}
}

// pass copies until one side closes, and then closes both.
func (p *Proxy) pass(to, from net.Conn, late func()) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			late()
			if _, failed := to.Write(buf[:n]); failed != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_, _ = to.Close(), from.Close()
	p.mu.Lock()
	delete(p.open, to)
	delete(p.open, from)
	p.mu.Unlock()
}
