// Pools of connections to the servers of a table.
//
// Several requests may use a table at once, and its file may name several servers with
// the same content. A pool keeps a bounded number of connections to them. A question
// that fails is asked again. If the connection was an old one, it may be left from
// before a restart of the server, so a new connection is tried first. Then the next
// server is tried. A server that failed comes after the others until its retry interval
// is over.
//
// Invariants:
//   - no more than Max connections are open, and a request waits for one no longer
//     than its context;
//   - each server is dialled at most once for one question, and may use its share of
//     the time that is left;
//   - a connection whose question failed is closed, never used again.

package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// ErrPoolClosed is the error of a pool that has been closed.
var ErrPoolClosed = errors.New("closed")

// Host is one server.
type Host[C any] struct {
	Name  string // for errors
	First bool   // asked before the others, as Postfix asks Unix sockets
	Dial  func(ctx context.Context) (C, error)
}

// PoolConfig has the settings of a pool.
type PoolConfig[C any] struct {
	Hosts    []Host[C]
	InOrder  bool          // ask the hosts in their order; else at random, the first ones before the others
	Max      int           // open connections, 1 or more
	Idle     time.Duration // an unused connection is closed after it
	Lifetime time.Duration // of any connection
	Retry    time.Duration // how long a host that failed comes last
	Close    func(C)
	Now      func() time.Time
}

// Pool is a set of connections. It is safe for concurrent use.
type Pool[C any] struct {
	config PoolConfig[C]
	slots  chan struct{} // one for each open or opening connection that is in use

	mu     sync.Mutex
	idle   []*pooled[C] // the last one was used last
	down   []time.Time
	closed bool
}

type pooled[C any] struct {
	c        C
	host     int
	born     time.Time
	lastUsed time.Time
}

// NewPool returns a pool. It does not dial yet.
func NewPool[C any](c PoolConfig[C]) *Pool[C] {
	return &Pool[C]{config: c, slots: make(chan struct{}, c.Max), down: make([]time.Time, len(c.Hosts))}
}

// Do asks a question by calling use. If final reports true for an error, Do returns it
// at once. After any other error it tries the next connection or host. It returns the
// last error.
func (p *Pool[C]) Do(ctx context.Context, use func(context.Context, C) error, final func(error) bool) error {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return fmt.Errorf("all %d connections are busy: %w", p.config.Max, context.Cause(ctx))
	}
	if old, err := p.take(); err != nil {
		return err
	} else if old != nil {
		err := p.useOne(ctx, old, len(p.config.Hosts)+1, use, final)
		if err == nil || final(err) || ctx.Err() != nil {
			return err
		}
	}
	order := p.order()
	var failed error
	for i, host := range order {
		err := p.dialAndAsk(ctx, host, len(order)-i, use, final)
		if err == nil || final(err) || ctx.Err() != nil {
			return err
		}
		failed = err
	}
	return failed
}

func (p *Pool[C]) dialAndAsk(ctx context.Context, host, left int, use func(context.Context, C) error, final func(error) bool) error {
	dialling, cancel := share(ctx, left)
	defer cancel()
	c, err := p.config.Hosts[host].Dial(dialling)
	if err != nil {
		p.failed(host)
		return fmt.Errorf("%s: %w", p.config.Hosts[host].Name, err)
	}
	now := p.config.Now()
	return p.useOne(ctx, &pooled[C]{c: c, host: host, born: now, lastUsed: now}, left, use, final)
}

// useOne uses one connection and puts it back or closes it. A final error says nothing
// about the host.
func (p *Pool[C]) useOne(ctx context.Context, c *pooled[C], left int, use func(context.Context, C) error, final func(error) bool) error {
	asking, cancel := share(ctx, left)
	defer cancel()
	if err := use(asking, c.c); err != nil {
		p.config.Close(c.c)
		if !final(err) {
			p.failed(c.host)
		}
		return fmt.Errorf("%s: %w", p.config.Hosts[c.host].Name, err)
	}
	p.put(c)
	return nil
}

// share returns a context that ends after a share of the time that is left.
func share(ctx context.Context, left int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || left <= 1 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
}

// take returns an idle connection that may be used, or nil.
func (p *Pool[C]) take() (*pooled[C], error) {
	p.mu.Lock()
	stale := p.expire(p.config.Now())
	defer p.closeAll(stale)
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrPoolClosed
	}
	n := len(p.idle)
	if n == 0 {
		return nil, nil
	}
	c := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return c, nil
}

// expire takes out the idle connections that are too old.
func (p *Pool[C]) expire(now time.Time) []*pooled[C] {
	return p.takeOut(func(c *pooled[C]) bool {
		return now.Sub(c.lastUsed) >= p.config.Idle || now.Sub(c.born) >= p.config.Lifetime
	})
}

func (p *Pool[C]) takeOut(bad func(*pooled[C]) bool) []*pooled[C] {
	var out []*pooled[C]
	kept := p.idle[:0]
	for _, c := range p.idle {
		if bad(c) {
			out = append(out, c)
		} else {
			kept = append(kept, c)
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	return out
}

// put gives a connection back.
func (p *Pool[C]) put(c *pooled[C]) {
	c.lastUsed = p.config.Now()
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.down[c.host] = time.Time{}
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if closed {
		p.config.Close(c.c)
	}
}

// failed makes a host the last choice for a while, and closes its other connections.
func (p *Pool[C]) failed(host int) {
	p.mu.Lock()
	p.down[host] = p.config.Now().Add(p.config.Retry)
	old := p.takeOut(func(c *pooled[C]) bool { return c.host == host })
	p.mu.Unlock()
	p.closeAll(old)
}

// order returns the hosts in the order in which they are tried.
func (p *Pool[C]) order() []int {
	n := len(p.config.Hosts)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	if !p.config.InOrder {
		rand.Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	now := p.config.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	sorted := make([]int, 0, n)
	for _, class := range []struct{ down, first bool }{{false, true}, {false, false}, {true, true}, {true, false}} {
		for _, i := range order {
			if now.Before(p.down[i]) == class.down && p.config.Hosts[i].First == class.first {
				sorted = append(sorted, i)
			}
		}
	}
	return sorted
}

// Idle returns the number of open connections that are not in use.
func (p *Pool[C]) Idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

// Close closes the idle connections; one in use is closed when it comes back.
func (p *Pool[C]) Close() {
	p.mu.Lock()
	p.closed = true
	old := p.idle
	p.idle = nil
	p.mu.Unlock()
	p.closeAll(old)
}

func (p *Pool[C]) closeAll(conns []*pooled[C]) {
	for _, c := range conns {
		p.config.Close(c.c)
	}
}
