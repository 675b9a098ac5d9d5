package resolver

import (
	"context"
	"hash/maphash"
	"strings"
	"time"
)

// flight is a question that has been sent; done is closed when out is there.
type flight struct {
	done chan struct{}
	out  outcome
}

func (r *Resolver) shard(q question) *shard {
	return r.shards[maphash.String(r.seed, q.name)&uint64(len(r.shards)-1)]
}

// lookup answers from the cache, from a question in flight, or by sending one.
// An error is ctx's or ErrClosed.
func (r *Resolver) lookup(ctx context.Context, q question) (outcome, error) {
	s, holding := r.shard(q), false
	for {
		now := r.now()
		s.mu.Lock()
		if kept, ok := s.get(q, now); ok {
			out := *kept
			s.mu.Unlock()
			r.releaseIf(holding)
			out.answer.TTL = out.expires.Sub(now)
			return out, nil
		}
		if !holding {
			s.misses++
		}
		f, ok := s.flights[q]
		if !ok && holding {
			q.name = strings.Clone(q.name) // kept long after the caller's buffer
			f = &flight{done: make(chan struct{})}
			s.flights[q] = f
		}
		s.mu.Unlock()
		if f == nil {
			if err := r.acquire(ctx); err != nil {
				return outcome{}, err
			}
			holding = true
			continue // another caller may have asked in the meantime
		}
		if ok {
			r.count.shared.Add(1)
			r.releaseIf(holding)
		} else {
			go r.fly(f, q)
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

// acquire waits for one of the slots that bound the questions in flight.
func (r *Resolver) acquire(ctx context.Context) error {
	select {
	case <-r.closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	default:
	}
	select {
	case r.slots <- struct{}{}:
		return nil
	default:
	}
	r.count.queued.Add(1)
	select {
	case r.slots <- struct{}{}:
		return nil
	case <-r.closed:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Resolver) releaseIf(holding bool) {
	if holding {
		<-r.slots
	}
}

// fly owns one slot. It ends when the tries are used up, a probe's time-out
// after that, or with Close.
func (r *Resolver) fly(f *flight, q question) {
	defer r.releaseIf(true)
	ctx := r.lifetime()
	out := r.resolve(ctx, q)
	r.land(f, q, out)
	if out.fail == nil {
		r.probe(ctx, q)
	}
}

// land keeps the outcome and wakes those who wait for it.
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

// resolve asks until the end of the CNAME chain and judges the time to keep.
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
