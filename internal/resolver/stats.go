package resolver

import (
	"errors"
	"sync/atomic"
)

// counters since the start, for Stats.
type counters struct {
	shared, failed, refusedDown                atomic.Uint64
	timeouts, unreachable, local               atomic.Uint64
	servFail, refused, otherCodes              atomic.Uint64
	malformed, mismatched, tcp, probes, resent atomic.Uint64
}

// note counts a failed try by its cause.
func (c *counters) note(f *failure) {
	switch {
	case f.kind == failSilent, f.kind == failCrowded:
		c.timeouts.Add(1)
	case f.kind == failUnreachable:
		c.unreachable.Add(1)
	case f.kind == failLocal:
		c.local.Add(1)
	case errors.Is(f.cause, ErrMalformed):
		c.malformed.Add(1)
	case errors.Is(f.cause, ServFail):
		c.servFail.Add(1)
	case errors.Is(f.cause, Refused):
		c.refused.Add(1)
	case f.kind == failAnswer:
		c.otherCodes.Add(1)
	}
}

// Stats is a snapshot for metrics. Numbers count from New, except where a field
// says "now".
type Stats struct {
	Hits   uint64 // lookups answered from the cache, with its failures
	Misses uint64 // all other lookups
	Shared uint64 // misses that joined a question in flight
	Queued uint64 // misses that waited for a place (Config.MaxInFlight)
	Failed uint64 // questions that no server answered
	// Crowded counts the questions that were ended without an answer because others
	// waited for their place. Unasked counts those that were not sent because no
	// server answers.
	Crowded, Unasked uint64

	// Failed tries, by cause.
	Timeouts, Unreachable, LocalErrors       uint64
	ServFail, Refused, OtherCodes, Malformed uint64

	Mismatched uint64 // packets ignored because of a wrong id or question: forged or late
	Resent     uint64 // packets sent a second time because no answer came
	TCP        uint64 // questions repeated over TCP
	Probes     uint64 // questions copied to a server that had failed

	Up             bool  // now: a server answers, as far as known
	InFlight       int   // now: questions that are in flight
	CacheEntries   int   // now
	CacheBytes     int64 // now, at most Config.CacheBytes
	CacheEvictions uint64

	Servers []ServerStats
}

// ServerStats is one server in [Stats].
type ServerStats struct {
	Address  string // host:port
	Up       bool   // now: in the rotation
	TCP      bool   // now: it answers over TCP, as far as known
	Failures int    // now: in a row
	Queries  uint64 // packets sent
}

// Stats takes a snapshot.
func (r *Resolver) Stats() Stats {
	c := &r.count
	inFlight, queued, crowded := r.places.load()
	out := Stats{
		Shared: c.shared.Load(), Queued: queued, Failed: c.failed.Load(), Crowded: crowded, Unasked: c.refusedDown.Load(),
		Up:       !r.outage.open(),
		Timeouts: c.timeouts.Load(), Unreachable: c.unreachable.Load(), LocalErrors: c.local.Load(),
		ServFail: c.servFail.Load(), Refused: c.refused.Load(), OtherCodes: c.otherCodes.Load(),
		Malformed: c.malformed.Load(), Mismatched: c.mismatched.Load(), TCP: c.tcp.Load(), Probes: c.probes.Load(), Resent: c.resent.Load(),
		InFlight: inFlight,
	}
	for _, s := range r.shards {
		s.mu.Lock()
		out.Hits += s.hits
		out.Misses += s.misses
		out.CacheEntries += len(s.entries)
		out.CacheBytes += s.bytes
		out.CacheEvictions += s.evictions
		s.mu.Unlock()
	}
	for _, s := range r.servers.all {
		s.mu.Lock()
		out.Servers = append(out.Servers, ServerStats{Address: s.name, Up: !s.down, TCP: s.tcp.breaker.Down() == nil, Failures: s.failures, Queries: s.queries.Load()})
		s.mu.Unlock()
	}
	return out
}
