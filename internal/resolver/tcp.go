package resolver

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/postern-mail/postern/internal/breaker"
)

// overTCP is the breaker for the answers of a server over TCP. Behind a firewall
// that passes only UDP, every large answer would cost a time-out, while all others
// arrive.
//
// Names whose own servers are silent must not open it. So it counts only questions
// about the root, as outage does.
type overTCP struct {
	breaker *breaker.Breaker
	looking atomic.Bool
}

// TCPChange reports that a server does not answer over TCP any more, or answers
// again.
type TCPChange struct {
	Server string // host:port
	breaker.Change
}

func newOverTCP(server string, c *Config) *overTCP {
	changed := c.TCPChanged
	if changed == nil {
		changed = func(TCPChange) {}
	}
	return &overTCP{breaker: breaker.New(breaker.Config{
		Failures: 1, // of a check
		Last:     maxOutagePause,
		Now:      c.Now,
		Changed:  func(change breaker.Change) { changed(TCPChange{server, change}) },
	})}
}

// askOverTCP asks a server again over TCP, because the answer does not fit into a
// packet or forged packets arrive. It fails at once while the server does not
// answer over TCP.
func (r *Resolver) askOverTCP(ctx context.Context, s *server, q question, edns bool) (*reply, error) {
	r.count.tcp.Add(1)
	if err := s.tcp.breaker.Down(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoTCP, err)
	}
	m, err := r.roundTrip(ctx, s, "tcp", q, edns)
	if err == nil && m.truncated {
		err = malformed(errors.New("truncated over TCP"))
	}
	return m, err
}

// lookOverTCP asks a server about the root over TCP and reports to the breaker
// whether it answered. It does nothing when a check is running already or when it
// is too early.
func (r *Resolver) lookOverTCP(s *server) {
	if !s.tcp.looking.CompareAndSwap(false, true) {
		return
	}
	look, err := s.tcp.breaker.Allow()
	if err != nil {
		s.tcp.looking.Store(false)
		return
	}
	started := r.places.start(func() {
		defer s.tcp.looking.Store(false)
		look.Done(r.rootOverTCP(s))
	})
	if !started {
		look.Abandon()
	}
}

// rootOverTCP returns nil when a server has sent any answer about the root, and
// context.Canceled when the resolver was closed.
func (r *Resolver) rootOverTCP(s *server) error {
	ctx, cancel := context.WithTimeout(r.lifetime(), r.timeout)
	defer cancel()
	_, err := r.roundTrip(ctx, s, "tcp", question{qtype: TypeNS}, false)
	if err == nil || errors.Is(err, ErrMalformed) {
		return nil
	}
	if kind := kindOf(r.lifetime(), err); kind != failStopped && kind != failLocal {
		return s.failed(kind, err).cause
	}
	return context.Canceled // says nothing about the server
}
