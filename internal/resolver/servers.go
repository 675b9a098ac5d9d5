package resolver

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// After softLimit error codes or unreadable answers in a row, a server is down:
	// it is asked after the others. A single one may be due to the name. After
	// silence a server is down at once.
	softLimit = 8
	// A server that is down is probed after minRest, then at intervals that double
	// up to maxRest.
	minRest = time.Second
	maxRest = 30 * time.Second
	// plainTime is how long a server without EDNS is asked without it.
	plainTime = 15 * time.Minute
)

// server is one configured server and the state of its health.
type server struct {
	addr    netip.AddrPort
	name    string // addr as errors show it
	trustAD bool
	queries atomic.Uint64
	tcp     *overTCP

	mu         sync.Mutex
	down       bool
	probing    bool
	failures   int // since the last success
	rest       time.Duration
	probeAt    time.Time // while down
	lastHeard  time.Time // any answer
	plainUntil time.Time // zero: EDNS
}

// pool holds all servers, and which is next.
type pool struct {
	all  []*server
	turn atomic.Uint32
}

func newPool(addrs []netip.AddrPort, trusted []netip.Prefix) *pool {
	p := &pool{}
	for _, a := range addrs {
		p.all = append(p.all, &server{
			addr: a,
			name: a.String(),
			trustAD: slices.ContainsFunc(trusted, func(n netip.Prefix) bool {
				return n.Contains(a.Addr().Unmap().WithZone(""))
			}),
		})
	}
	return p
}

// order returns the servers in the order in which one lookup tries them: the
// healthy ones in rotation, then the others, those with the fewest failures first.
func (p *pool) order() []*server {
	var failed [maxServers]int
	order := make([]*server, 0, maxServers)
	turn := int(p.turn.Add(1) % uint32(len(p.all)))
	for i := range p.all {
		s := p.all[(turn+i)%len(p.all)]
		f, at := s.failuresIfDown(), len(order)
		for ; at > 0 && failed[at-1] > f; at-- {
			failed[at] = failed[at-1]
		}
		failed[at] = f
		order = slices.Insert(order, at, s)
	}
	return order
}

func (s *server) failuresIfDown() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.down {
		return 0
	}
	return max(s.failures, 1)
}

// failed returns a failure that names the server.
func (s *server) failed(kind failKind, cause error) *failure {
	switch kind {
	case failSilent:
		cause = ErrTimeout
	case failUnreachable:
		if !errors.Is(cause, ErrNoTCP) {
			cause = unreachable(cause)
		}
	case failStopped:
		cause = ErrClosed
	case failCrowded:
		cause = ErrCrowded
	}
	return &failure{kind: kind, cause: cause, server: s.name}
}

// answered notes that the server has answered, whatever the answer.
func (s *server) answered(now time.Time) {
	s.mu.Lock()
	s.lastHeard = now
	s.mu.Unlock()
}

func (s *server) succeeded(now time.Time) {
	s.mu.Lock()
	s.lastHeard = now
	s.down, s.failures, s.rest = false, 0, 0
	s.mu.Unlock()
}

// blame notes a failed try. Silence does not count when the server has answered
// another question since: the servers of the name itself may be dead.
//
// It reports whether the server has sent nothing at all since started.
func (s *server) blame(kind failKind, started, now time.Time) (mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	heard := s.lastHeard.After(started)
	switch kind {
	case failAnswer:
		s.lastHeard = now
		s.failures++
		if s.failures < softLimit {
			return false
		}
	case failSilent, failCrowded, failUnreachable:
		if heard {
			return false
		}
		s.failures++
		mute = kind != failUnreachable
	default:
		return false
	}
	if s.down && now.Before(s.probeAt) {
		return mute // one outage, seen by several at once
	}
	s.down = true
	s.rest = min(max(2*s.rest, minRest), maxRest)
	s.probeAt = now.Add(s.rest)
	return mute
}

func (s *server) edns(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !now.Before(s.plainUntil)
}

func (s *server) withoutEDNS(now time.Time) {
	s.mu.Lock()
	s.plainUntil = now.Add(plainTime)
	s.mu.Unlock()
}

// claimProbe reports whether the caller has to probe s now. If so, the caller must
// call probed afterwards.
func (s *server) claimProbe(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.down || s.probing || now.Before(s.probeAt) {
		return false
	}
	s.probing = true
	return true
}

func (s *server) probed() {
	s.mu.Lock()
	s.probing = false
	s.mu.Unlock()
}

// probe sends the question that one server has just answered to another server that
// is down and whose rest is over. No caller waits for it.
func (r *Resolver) probe(ctx context.Context, q question) {
	for _, s := range r.servers.all {
		if !s.claimProbe(r.now()) {
			continue
		}
		r.count.probes.Add(1)
		_, _ = r.try(ctx, s, q) // notes the outcome at s
		s.probed()
		return
	}
}
