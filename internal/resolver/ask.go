package resolver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"
)

// maxChases limits how often a CNAME at the end of an answer leads to a new
// question. Recursive servers follow CNAME records themselves, so more of them are
// an attack.
const maxChases = 4

// chase asks for q, and for the target when the answer ends in a CNAME. The TTL of
// the reply is the lowest of all answers. Its AD is set if trusted servers
// validated all of them.
func (r *Resolver) chase(ctx context.Context, q question) (*reply, *failure) {
	ttl, ad, seen, tries := ^uint32(0), true, []string{q.name}, r.tries
	for {
		m, s, fail := r.askServers(ctx, q, &tries)
		if fail != nil {
			return m, fail
		}
		ttl, ad = min(ttl, m.ttl), ad && m.ad && s.trustAD
		if !m.dangling(q) {
			m.ttl, m.ad = ttl, ad
			return m, nil
		}
		if slices.Contains(seen, m.end) || len(seen) > maxChases {
			return m, s.failed(failAnswer, malformed(errCNAMELoop))
		}
		seen = append(seen, m.end)
		q.name = m.end
	}
}

// askServers tries the servers in turn until one answers. A server that answered with an
// error is not asked again. A silent one is asked again when its turn comes. Each
// failed try reduces tries.
func (r *Resolver) askServers(ctx context.Context, q question, tries *int) (*reply, *server, *failure) {
	var said *failure
	left := r.servers.order()
	for len(left) > 0 {
		if said != nil && r.outage.open() {
			break
		}
		s := left[0]
		left = left[1:]
		m, fail := r.try(ctx, s, q)
		if fail == nil {
			return m, s, nil
		}
		switch fail.kind {
		case failStopped, failLocal, failCrowded:
			return m, s, fail
		case failSilent:
			left = append(left, s)
		}
		said = worse(said, fail)
		if *tries--; *tries <= 0 {
			break
		}
	}
	r.count.failed.Add(1)
	return nil, nil, said
}

// try asks one server within one time-out. It leaves EDNS out when the server does
// not know it. It uses TCP when the answer does not fit into a packet, or when
// forged packets arrive.
func (r *Resolver) try(ctx context.Context, s *server, q question) (*reply, *failure) {
	whole := ctx
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	started := r.now()
	m, err := r.negotiate(ctx, s, q, started)
	overTCP := err == nil && m.truncated || errors.Is(err, errFlooded)
	if overTCP {
		s.answered(r.now())
		m, err = r.askOverTCP(ctx, s, q, s.edns(started))
	}
	if err == nil && m.rcode != NoError && m.rcode != NXDomain {
		err = m.rcode
	}
	if err == nil {
		s.succeeded(r.now())
		return m, nil
	}
	fail := s.failed(kindOf(whole, err), err)
	r.count.note(fail)
	switch {
	case overTCP && fail.hidden(): // it has answered over UDP
		r.lookOverTCP(s)
	case s.blame(fail.kind, started, r.now()):
		r.suspect()
	}
	return m, fail
}

// negotiate asks over UDP, and once more without EDNS when the server says
// that it does not understand (RFC 6891 section 7).
func (r *Resolver) negotiate(ctx context.Context, s *server, q question, now time.Time) (*reply, error) {
	edns := s.edns(now)
	m, err := r.roundTrip(ctx, s, "udp", q, edns)
	if err != nil || !edns {
		return m, err
	}
	switch m.rcode {
	case FormErr, NotImp, badVers:
		plain, err := r.roundTrip(ctx, s, "udp", q, false)
		if err == nil && (plain.rcode == NoError || plain.rcode == NXDomain) {
			s.withoutEDNS(now)
		}
		return plain, err
	}
	return m, nil
}

// roundTrip sends q once under a new id and reads until its answer comes.
func (r *Resolver) roundTrip(ctx context.Context, s *server, network string, q question, edns bool) (*reply, error) {
	var random [2]byte
	rand.Read(random[:]) // never fails: it would end the program
	id := binary.BigEndian.Uint16(random[:])
	query, err := q.pack(make([]byte, querySize), id, edns)
	if err != nil {
		return nil, err
	}
	s.queries.Add(1)
	var m *reply
	var bad error
	err = r.exchange(ctx, s.addr, network, query, func(packet []byte) bool {
		m, bad = decode(packet, query, q)
		if errors.Is(bad, errMismatch) {
			r.count.mismatched.Add(1)
			return false
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	return m, bad
}

// kindOf returns the kind of the failure err. ctx is the context of the whole
// lookup.
func kindOf(ctx context.Context, err error) failKind {
	var code RCode
	var netErr net.Error
	switch {
	case errors.Is(context.Cause(ctx), ErrCrowded):
		return failCrowded
	case errors.Is(ctx.Err(), context.Canceled):
		return failStopped
	case errors.Is(err, ErrNoTCP):
		return failUnreachable
	case errors.As(err, &code), errors.Is(err, ErrMalformed):
		return failAnswer
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &netErr) && netErr.Timeout():
		return failSilent
	case isLocal(err), errors.Is(err, ErrBadName):
		return failLocal
	}
	return failUnreachable
}

// isLocal reports whether this machine has run out of sockets, ports or memory.
func isLocal(err error) bool {
	return slices.ContainsFunc(
		[]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL, syscall.EAGAIN},
		func(e error) bool { return errors.Is(err, e) })
}

// exchangeFunc sends query and passes every packet that comes back to take, until
// take reports that it was the answer.
type exchangeFunc func(ctx context.Context, to netip.AddrPort, network string, query []byte, take func([]byte) bool) error
