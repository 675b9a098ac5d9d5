package memstore

import (
	"iter"
	"maps"
	"slices"

	"github.com/postern-mail/postern/internal/limit"
)

// txn is one transaction: the recipients that were counted for it, and how much it has
// of each counter.
type txn struct {
	name  limit.Digest
	done  bool
	ends  limit.Millis
	parts parts
	held  []held
	gone  bool // forgotten
	// For the file: written means that the file may have it, dirty that it must be
	// written, and undone that it must be forgotten there.
	written, dirty, undone bool

	next, prev *txn // by the time at which they end

	// These arrays are the first memory of parts and held. They are enough for most
	// transactions.
	onePart [1]limit.Digest
	fewHeld [2]held
}

// held is the share of a transaction in one counter.
type held struct {
	counter  *counter
	reserved int64 // reserved until the End
	counted  int64 // counted in the window at the time at
	at       limit.Millis
}

// txns are all transactions, in the order in which they end.
type txns struct {
	all            map[limit.Digest]*txn
	oldest, newest *txn
	parts          int // of all

	free    *txn // transactions that were forgotten, for their memory
	freeLen int
}

// Bounds beyond limit.MaxTransactions.
const (
	// maxParts bounds the recipients of all transactions.
	maxParts = 20 * limit.MaxTransactions
	// maxFree bounds the memory that is kept for new transactions. Usually as many end
	// as begin.
	maxFree = 1000
)

// add adds a transaction, without its place in the order.
func (x *txns) add(name limit.Digest) *txn {
	t := x.free
	if t == nil {
		t = new(txn)
	} else {
		x.free = t.next
		x.freeLen--
	}
	t.begin(name)
	x.all[name] = t
	return t
}

// begin makes t a new transaction.
func (t *txn) begin(name limit.Digest) {
	*t = txn{name: name}
	t.parts.few, t.held = t.onePart[:0], t.fewHeld[:0]
}

// remove removes a transaction, and keeps its memory, unless the file has to know of it.
func (x *txns) remove(t *txn) {
	x.unlink(t)
	x.parts -= t.parts.len()
	delete(x.all, t.name)
	t.gone = true
	if x.freeLen < maxFree && !t.dirty && !t.undone {
		*t = txn{next: x.free, gone: true}
		x.free = t
		x.freeLen++
	}
}

// link makes a transaction the last one to end.
func (x *txns) link(t *txn) {
	t.prev = x.newest
	if x.newest == nil {
		x.oldest = t
	} else {
		x.newest.next = t
	}
	x.newest = t
}

func (x *txns) unlink(t *txn) {
	if t.prev == nil {
		x.oldest = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		x.newest = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.next, t.prev = nil, nil
}

// transaction returns the transaction of an op, and creates it if it is missing.
func (s *Store) transaction(op *limit.Op, now limit.Millis) *txn {
	s.expire(now)
	t := s.running(op, now)
	if t == nil {
		for len(s.txns.all) >= limit.MaxTransactions || s.txns.parts >= maxParts {
			s.forget(s.txns.oldest)
		}
		t = s.txns.add(op.Txn)
	} else {
		s.txns.unlink(t)
	}
	t.ends = now + limit.HoldFor.Milliseconds()
	s.txns.link(t)
	return t
}

// running returns the transaction of an op, or nil if there is none or it has ended.
func (s *Store) running(op *limit.Op, now limit.Millis) *txn {
	t := s.txns.all[op.Txn]
	if t != nil && t.ends <= now {
		s.forget(t)
		return nil
	}
	return t
}

// expire ends transactions whose time is over, a few at a time.
func (s *Store) expire(now limit.Millis) {
	const atOnce = 64
	for range atOnce {
		if s.txns.oldest == nil || s.txns.oldest.ends > now {
			return
		}
		s.forget(s.txns.oldest)
	}
}

// forget releases what a transaction has reserved, and removes the transaction.
func (s *Store) forget(t *txn) {
	for i := range t.held {
		s.release(&t.held[i], t.held[i].reserved)
	}
	s.txns.remove(t)
}

// release releases n of what a hold has reserved.
func (s *Store) release(h *held, n int64) {
	if n == 0 {
		return
	}
	if c := s.heldIn(h); c != nil {
		c.reserved = max(c.reserved-n, 0)
	}
}

// counterOf returns the counter of an item, or nil.
func (s *Store) counterOf(it *limit.Item) *counter { return s.tableOf(it.Rule.OfLogins()).find(it.ID) }

// heldIn returns the counter of a hold, or nil if it does not exist any more. A counter
// that was dropped can have been created again.
func (s *Store) heldIn(h *held) *counter {
	if !h.counter.gone {
		return h.counter
	}
	return s.tableOf(h.counter.logins).find(h.counter.id)
}

// hold returns the share of the transaction in an item's counter, or nil.
func (t *txn) hold(it *limit.Item) *held {
	for i := range t.held {
		if t.held[i].counter.id == it.ID {
			return &t.held[i]
		}
	}
	return nil
}

// keep is like hold, but creates the share if it is missing. c is the item's counter.
func (t *txn) keep(it *limit.Item, c *counter) *held {
	if h := t.hold(it); h != nil {
		return h
	}
	t.held = append(t.held, held{counter: c})
	return &t.held[len(t.held)-1]
}

// own returns the sum of what the transaction has in an item's counter.
func (t *txn) own(it *limit.Item) int64 {
	if h := t.hold(it); h != nil {
		return h.reserved + h.counted
	}
	return 0
}

// parts are the recipients of a transaction. Most transactions have few.
type parts struct {
	few  []limit.Digest
	many map[limit.Digest]struct{} // all, when there are more than fewParts
}

const fewParts = 8

func (p *parts) len() int { return max(len(p.few), len(p.many)) }

func (p *parts) has(part limit.Digest) bool {
	if p.many != nil {
		_, ok := p.many[part]
		return ok
	}
	return slices.Contains(p.few, part)
}

// each returns all parts.
func (p *parts) each() iter.Seq[limit.Digest] {
	if p.many != nil {
		return maps.Keys(p.many)
	}
	return slices.Values(p.few)
}

// add adds a part that is not in the set.
func (p *parts) add(part limit.Digest) {
	if p.many == nil && len(p.few) < fewParts {
		p.few = append(p.few, part)
		return
	}
	if p.many == nil {
		p.many = make(map[limit.Digest]struct{}, 2*fewParts)
		for _, one := range p.few {
			p.many[one] = struct{}{}
		}
		p.few = nil
	}
	p.many[part] = struct{}{}
}

func (p *parts) remove(part limit.Digest) {
	delete(p.many, part)
	p.few = slices.DeleteFunc(p.few, func(one limit.Digest) bool { return one == part })
}
