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
	// softLimit is how many error codes or unreadable answers in a row put a
	// server behind the others. One may be due to the name; silence puts it
	// there at once.
	softLimit = 8
	// A server behind the others is probed after minRest, then at intervals
	// that double up to maxRest.
	minRest = time.Second
	maxRest = 30 * time.Second
	// plainTime is how long a server without EDNS is asked without it.
	plainTime = 15 * time.Minute
)

// server is one configured server and what is known of its health.
type server struct {
	addr    netip.AddrPort
	name    string // addr as it is in errors
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

// pool is all servers, and whose turn it is.
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

// order returns the servers as one lookup is to try them: the healthy ones in
// rotation, then the others, the least failed first.
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

// failed names the server in a failure.
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

// answered notes that the server lives, whatever it said.
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

// blame notes a failed try. Silence about one name does not count against a
// server that has answered others since: the name's own servers may be dead.
//
// It reports whether the server has said nothing at all since started.
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

// claimProbe reports whether the caller is to probe s now. Whoever claims must
// call probed.
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

// probe asks one server whose rest is over the question that another has just
// answered. No one waits for it.
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
