package resolver

import (
	"context"
	"hash/maphash"
	"runtime"
	"strings"
	"time"
)

// flight is a question that has been sent. done is closed when out is set.
type flight struct {
	done chan struct{}
	out  outcome
}

func (r *Resolver) shard(q question) *shard {
	return r.shards[maphash.String(r.seed, q.name)&uint64(len(r.shards)-1)]
}

// lookup answers from the cache, from a question in flight, or sends a new
// question. The error is that of ctx, or ErrClosed.
func (r *Resolver) lookup(ctx context.Context, q question) (outcome, error) {
	s := r.shard(q)
	var held *place
	for {
		now := r.now()
		s.mu.Lock()
		if kept, ok := s.get(q, now); ok {
			out := *kept
			s.mu.Unlock()
			r.releaseIf(held)
			out.answer.TTL = out.expires.Sub(now)
			return out, nil
		}
		if held == nil {
			s.misses++
		}
		f, ok := s.flights[q]
		if !ok && held != nil {
			q.name = strings.Clone(q.name) // kept longer than the buffer of the caller
			f = &flight{done: make(chan struct{})}
			s.flights[q] = f
		}
		s.mu.Unlock()
		if f == nil {
			if fail := r.refuse(ctx); fail != nil {
				return outcome{fail: fail}, nil
			}
			var err error
			if held, err = r.places.acquire(ctx, q); err != nil {
				return outcome{}, err
			}
			continue // another caller may have asked in the meantime
		}
		if ok {
			r.count.shared.Add(1)
			r.releaseIf(held)
		} else {
			go r.fly(f, q, held)
		}
		return f.wait(ctx)
	}
}

func (f *flight) wait(ctx context.Context) (outcome, error) {
	select {
	case <-f.done:
		return f.out, nil
	case <-ctx.Done():
		return outcome{}, ctx.Err()
	}
}

func (r *Resolver) releaseIf(held *place) {
	if held != nil {
		r.places.release(held)
	}
}

// fly owns one place. It ends when the tries are used up and a probe has had its
// time-out, when another question needs the place, or with Close.
func (r *Resolver) fly(f *flight, q question, held *place) {
	defer r.places.release(held)
	growStack()
	ctx, end := context.WithCancelCause(r.lifetime())
	defer end(nil)
	r.places.begin(held, end)
	question, err := r.outage.breaker.Allow()
	if err != nil { // while it waited for the place
		r.land(f, q, outcome{fail: r.outage.failure()})
		return
	}
	start := r.now()
	out := r.resolve(ctx, q)
	r.land(f, q, out)
	r.took(out.kind(), r.now().Sub(start))
	if out.fail != nil && out.fail.kind != failAnswer {
		question.Abandon()
		return
	}
	question.Done(nil)
	if out.fail == nil {
		r.probe(ctx, q)
	}
}

// growStack makes the stack large enough for a flight at its start, when there is
// little to copy. Growth in the middle of a flight takes 4 % of the time of a
// lookup (BenchmarkUncached: runtime.newstack in its profile).
//
//go:noinline
func growStack() {
	var room [5 << 10]byte
	runtime.KeepAlive(&room)
}

// land stores the outcome and wakes all who wait for it.
func (r *Resolver) land(f *flight, q question, out outcome) {
	s := r.shard(q)
	f.out = out
	s.mu.Lock()
	if !out.expires.IsZero() {
		s.put(q, out)
	}
	delete(s.flights, q)
	s.mu.Unlock()
	close(f.done)
}

// resolve asks until the end of the CNAME chain and decides how long the outcome is
// kept.
func (r *Resolver) resolve(ctx context.Context, q question) outcome {
	m, fail := r.chase(ctx, q)
	now := r.now()
	if fail != nil {
		out := outcome{fail: fail}
		if fail.kept() {
			out.expires = now.Add(failureTTL)
		}
		return out
	}
	answer := m.answer
	answer.Name = m.end + "."
	answer.AD = m.ad
	switch {
	case m.rcode == NXDomain:
		answer.Status = StatusNXDomain
		answer.TTL = r.ttl.negative(m.soa, min(m.ttl, m.soaTTL))
	case answer.size() == 0:
		answer.Status = StatusNoData
		answer.TTL = r.ttl.negative(m.soa, min(m.ttl, m.soaTTL))
	default:
		answer.TTL = r.ttl.positive(m.ttl)
	}
	return outcome{answer: answer, expires: expiry(now, answer.TTL)}
}

func expiry(now time.Time, ttl time.Duration) time.Time {
	if ttl <= 0 {
		return time.Time{}
	}
	return now.Add(ttl)
}
