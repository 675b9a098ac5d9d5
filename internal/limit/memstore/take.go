package memstore

import (
	"context"

	"github.com/postern-mail/postern/internal/limit"
)

// Take implements limit.Store.
func (s *Store) Take(_ context.Context, op *limit.Op) (limit.Answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.millis(op.Now)
	a := op.Answer()
	if a.Blocked = s.blocked(op.Block, op.Now); a.Blocked != nil {
		a.Refused = true
	}
	switch {
	case a.Refused || len(op.Items) == 0:
	case op.Look:
		s.lookOnly(op, &a, now)
	default:
		s.take(op, &a, now)
	}
	return a, nil
}

// usual is how many counters most ops have at most.
const usual = 8

func (s *Store) take(op *limit.Op, a *limit.Answer, now limit.Millis) {
	t := s.transaction(op, now)
	var room [usual]*counter
	counters := s.find(op.Items, now, room[:0])
	if a.Repeat = t.counted(op); a.Repeat {
		for i, c := range counters {
			a.Uses[i] = again(&op.Items[i], c.used(op.Items[i].Rule))
		}
		return
	}
	for i, c := range counters {
		a.Uses[i] = c.look(t, op, &op.Items[i], now)
		a.Refused = a.Refused || a.Uses[i].Over && !op.Items[i].Lenient
	}
	if a.Refused {
		s.alarms(op, a, counters, now)
		if op.Step == limit.End {
			s.undo(t, op, now)
		}
		return
	}
	for i, c := range counters {
		it := &op.Items[i]
		s.count(t, op, it, c, now)
		a.Uses[i].Used = c.used(it.Rule)
		c.peak = max(c.peak, a.Uses[i].Used)
	}
	s.note(t, op)
	s.alarms(op, a, counters, now)
}

// again returns the use of an item that was counted before. Only a lenient one can be
// beyond its count. The answer to the first request may not have arrived.
func again(it *limit.Item, used int64) limit.Use {
	return limit.Use{Used: used, Over: it.Lenient && !it.Missing && used+it.Need > it.Rule.Count}
}

// lookOnly judges and counts nothing.
func (s *Store) lookOnly(op *limit.Op, a *limit.Answer, now limit.Millis) {
	t := s.running(op, now)
	if t == nil {
		t = new(txn)
	}
	a.Repeat = t.counted(op)
	for i := range op.Items {
		it := &op.Items[i]
		c := s.counterOf(it)
		if c == nil {
			c = &counter{window: it.Rule.Window.Milliseconds()}
		}
		c.advance(now)
		a.Uses[i] = c.look(t, op, it, now)
		if a.Repeat {
			a.Uses[i] = again(it, a.Uses[i].Used)
		}
		a.Refused = a.Refused || a.Uses[i].Over && !it.Lenient
	}
}

// counted reports whether the op was counted before.
func (t *txn) counted(op *limit.Op) bool {
	if op.Step == limit.End {
		return t.done
	}
	return t.parts.has(op.Part)
}

func (s *Store) note(t *txn, op *limit.Op) {
	if op.Step == limit.End {
		t.done = true
		s.remember(t)
		return
	}
	t.parts.add(op.Part)
	s.txns.parts++
}

// more returns what a step adds to a counter in which the transaction has own already.
func (t *txn) more(op *limit.Op, it *limit.Item, own int64) int64 {
	switch {
	case it.Missing:
		return max(int64(t.parts.len())-it.Amount, 0)
	case op.Step == limit.End:
		return it.Amount - own
	case it.Once && own > 0:
		return 0
	}
	return it.Amount
}

// look judges one item.
func (c *counter) look(t *txn, op *limit.Op, it *limit.Item, now limit.Millis) limit.Use {
	if it.Rule.Unit == limit.Networks {
		u := limit.Use{Used: c.spread.Len()}
		if u.Over = !c.spread.Has(it.Member) && u.Used+1 > it.Rule.Count; u.Over {
			u.Wait = c.wait(it.Rule, 1, now)
		}
		return u
	}
	more := t.more(op, it, t.own(c))
	need := max(more, it.Need)
	u := limit.Use{Used: c.used(it.Rule)}
	if u.Over = need > 0 && u.Used+need > it.Rule.Count && !it.Missing; u.Over {
		u.Wait = c.wait(it.Rule, need, now)
	}
	return u
}

// count adds the amount of a step.
func (s *Store) count(t *txn, op *limit.Op, it *limit.Item, c *counter, now limit.Millis) {
	s.changed(c)
	if it.Rule.Unit == limit.Networks {
		c.spread.See(now, it.Member)
		c.networks = true
		return
	}
	more := t.more(op, it, t.own(c))
	switch {
	case it.Missing || it.Direct:
		c.series.Add(now, c.width(), more)
		s.remember(t)
	case op.Step == limit.End:
		h := s.keep(t, c)
		c.release(h.reserved)
		c.add(now, it.Amount-h.counted)
		h.reserved, h.counted, h.at = 0, it.Amount, now
	case more <= 0:
	case op.Reserve:
		c.reserved += more
		s.keep(t, c).reserved += more
	default:
		c.series.Add(now, c.width(), more)
		h := s.keep(t, c)
		h.counted, h.at = h.counted+more, now
		s.remember(t)
	}
}

// add counts n. If n is negative, it takes back.
func (c *counter) add(now limit.Millis, n int64) {
	if n < 0 {
		c.series.Sub(-n)
		return
	}
	c.series.Add(now, c.width(), n)
}

func (s *Store) alarms(op *limit.Op, a *limit.Answer, counters []*counter, now limit.Millis) {
	for i, c := range counters {
		if a.Uses[i].Alarm = c.alarm(op.Items[i].Rule, a.Uses[i].Over, now); a.Uses[i].Alarm != 0 {
			s.changed(c)
		}
	}
}

// Undo implements limit.Store.
func (s *Store) Undo(_ context.Context, op *limit.Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.millis(op.Now)
	if t := s.running(op, now); t != nil && t.counted(op) {
		s.undo(t, op, now)
	}
	return nil
}

// undo takes back a named recipient. For an End, it takes back what the End has counted;
// recipients that were counted when they were named stay.
func (s *Store) undo(t *txn, op *limit.Op, now limit.Millis) {
	if t.written {
		s.remember(t)
	}
	if op.Step == limit.End {
		for i := range op.Items {
			if c, h := s.share(t, &op.Items[i]); h != nil {
				s.uncount(c, h.counted, h.at, now)
			}
		}
		t.undone = true
		s.forget(t)
		return
	}
	t.parts.remove(op.Part)
	s.txns.parts--
	for i := range op.Items {
		s.undoItem(t, &op.Items[i], now)
	}
}

// uncount takes back n that was counted at a time, unless it has left the window.
func (s *Store) uncount(c *counter, n int64, at, now limit.Millis) {
	if n == 0 || now-at >= c.window {
		return
	}
	c.advance(now)
	c.series.Sub(n)
	s.changed(c)
}

func (s *Store) undoItem(t *txn, it *limit.Item, now limit.Millis) {
	if it.Rule.Unit == limit.Networks || it.Once && t.parts.len() > 0 {
		return
	}
	if it.Direct {
		if c := s.counterOf(it); c != nil {
			s.uncount(c, it.Amount, now, now)
		}
		return
	}
	c, h := s.share(t, it)
	if h == nil {
		return
	}
	reserved := min(h.reserved, it.Amount)
	counted := min(h.counted, it.Amount-reserved)
	s.uncount(c, counted, h.at, now)
	h.reserved, h.counted = h.reserved-reserved, h.counted-counted
	c.release(reserved)
}

// Add implements limit.Store.
func (s *Store) Add(_ context.Context, op *limit.Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.millis(op.Now)
	for i, c := range s.find(op.Items, now, nil) {
		c.series.Add(now, c.width(), op.Items[i].Amount)
		c.peak = max(c.peak, c.used(op.Items[i].Rule))
		s.changed(c)
	}
	return nil
}
