package memstore

import (
	"encoding/binary"
	"maps"

	"github.com/postern-mail/postern/internal/limit"
)

// txn is one transaction: the recipients that were counted for it, and how much it has
// of each counter.
type txn struct {
	name       limit.Digest
	slot       slot
	next, prev slot // by the time at which they end
	ends       limit.Millis
	parts      parts
	held       shares
	done       bool
	gone       bool // forgotten
	// For the file: written means that the file may have it, dirty that it must be
	// written, taken that it was in the latest batch, and undone that it must be forgotten
	// there.
	written, dirty, taken, undone bool
}

// held is the share of a transaction in one counter. If the counter was dropped, what was
// counted in it is forgotten, and so is the share.
type held struct {
	counter  ref
	reserved int64 // reserved until the End
	counted  int64 // counted in the window at the time at
	at       limit.Millis
}

// shares are what a transaction has of counters. Most transactions have few.
type shares struct {
	few  [2]held
	many []held // those beyond few
	len  int
}

func (h *shares) at(i int) *held {
	if i < len(h.few) {
		return &h.few[i]
	}
	return &h.many[i-len(h.few)]
}

// add adds a share in a counter, which is not in the list.
func (h *shares) add(c *counter) *held {
	if h.len >= len(h.few) {
		h.many = append(h.many, held{})
	}
	h.len++
	one := h.at(h.len - 1)
	one.counter = c.ref
	return one
}

// txns are all transactions, in the order in which they end.
type txns struct {
	slab           slab[txn]
	index          index // by name, which is random
	oldest, newest slot
	parts          int // of all
}

// maxParts bounds the recipients of all transactions.
const maxParts = 20 * limit.MaxTransactions

func hashOf(name limit.Digest) uint32 { return binary.LittleEndian.Uint32(name[:]) }

// find returns the transaction with a name, or nil.
func (x *txns) find(name limit.Digest) *txn {
	n := x.index.find(hashOf(name), func(n slot) bool { return x.slab.at(n).name == name })
	if n == 0 {
		return nil
	}
	return x.slab.at(n)
}

// len returns the number of transactions that are not forgotten.
func (x *txns) len() int { return x.index.len }

// full reports whether a transaction must be forgotten before another one begins.
func (x *txns) full() bool { return x.len() >= limit.MaxTransactions || x.parts >= maxParts }

// add adds a transaction, without its place in the order.
func (x *txns) add(name limit.Digest) *txn {
	n := x.slab.take()
	t := x.slab.at(n)
	t.name, t.slot = name, n
	x.index.add(hashOf(name), n)
	return t
}

// remove removes a transaction.
func (x *txns) remove(t *txn) {
	x.unlink(t)
	x.parts -= t.parts.len()
	x.index.remove(hashOf(t.name), t.slot)
	t.gone = true
	x.reuse(t)
}

// reuse gives the slot of a transaction back, unless it is still needed.
func (x *txns) reuse(t *txn) {
	if t.gone && !t.dirty && !t.taken {
		x.slab.give(t.slot)
	}
}

// link makes a transaction the last one to end.
func (x *txns) link(t *txn) {
	t.prev = x.newest
	if x.newest == 0 {
		x.oldest = t.slot
	} else {
		x.slab.at(x.newest).next = t.slot
	}
	x.newest = t.slot
}

func (x *txns) unlink(t *txn) {
	if t.prev == 0 {
		x.oldest = t.next
	} else {
		x.slab.at(t.prev).next = t.next
	}
	if t.next == 0 {
		x.newest = t.prev
	} else {
		x.slab.at(t.next).prev = t.prev
	}
	t.next, t.prev = 0, 0
}

// first returns the transaction that ends first, or nil.
func (x *txns) first() *txn {
	if x.oldest == 0 {
		return nil
	}
	return x.slab.at(x.oldest)
}

// all calls yield for the transactions until it returns false.
func (x *txns) all(yield func(*txn) bool) {
	for n := x.oldest; n != 0; n = x.slab.at(n).next {
		if !yield(x.slab.at(n)) {
			return
		}
	}
}

// transaction returns the transaction of an op, and creates it if it is missing.
func (s *Store) transaction(op *limit.Op, now limit.Millis) *txn {
	s.expire(now)
	t := s.running(op, now)
	if t == nil {
		for s.txns.full() {
			s.forget(s.txns.first())
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
	t := s.txns.find(op.Txn)
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
		t := s.txns.first()
		if t == nil || t.ends > now {
			return
		}
		s.forget(t)
	}
}

// forget releases what a transaction has reserved, and removes the transaction.
func (s *Store) forget(t *txn) {
	for i := range t.held.len {
		if h := t.held.at(i); h.reserved > 0 {
			if c := s.at(h.counter); c != nil {
				c.release(h.reserved)
			}
		}
	}
	s.txns.remove(t)
}

// release releases n of what is reserved.
func (c *counter) release(n int64) { c.reserved = max(c.reserved-n, 0) }

// counterOf returns the counter of an item, or nil.
func (s *Store) counterOf(it *limit.Item) *counter { return s.tableOf(it.Rule.OfLogins()).find(it.ID) }

// share returns the counter of an item and the share of the transaction in it. The share
// is nil if one of them does not exist.
func (s *Store) share(t *txn, it *limit.Item) (*counter, *held) {
	c := s.counterOf(it)
	if c == nil {
		return nil, nil
	}
	return c, t.hold(c)
}

// hold returns the share of the transaction in a counter, or nil.
func (t *txn) hold(c *counter) *held {
	for i := range t.held.len {
		if h := t.held.at(i); h.counter == c.ref {
			return h
		}
	}
	return nil
}

// keep is like hold, but creates the share if it is missing.
func (s *Store) keep(t *txn, c *counter) *held {
	if h := t.hold(c); h != nil {
		return h
	}
	for i := range t.held.len {
		if h := t.held.at(i); s.at(h.counter) == nil { // of no use any more
			*h = held{counter: c.ref}
			return h
		}
	}
	return t.held.add(c)
}

// own returns the sum of what the transaction has in a counter.
func (t *txn) own(c *counter) int64 {
	if h := t.hold(c); h != nil {
		return h.reserved + h.counted
	}
	return 0
}

// parts are the recipients of a transaction. Most transactions have one.
type parts struct {
	one   limit.Digest
	alone bool                      // there is only one
	more  map[limit.Digest]struct{} // all, once there were two
}

func (p *parts) len() int {
	if p.alone {
		return 1
	}
	return len(p.more)
}

func (p *parts) has(part limit.Digest) bool {
	if p.alone {
		return p.one == part
	}
	_, ok := p.more[part]
	return ok
}

// each calls yield for all parts, until it returns false.
func (p *parts) each(yield func(limit.Digest) bool) {
	if p.alone {
		yield(p.one)
		return
	}
	maps.Keys(p.more)(yield)
}

// add adds a part that is not in the set.
func (p *parts) add(part limit.Digest) {
	switch {
	case p.more != nil:
		p.more[part] = struct{}{}
	case p.alone:
		p.more, p.alone = map[limit.Digest]struct{}{p.one: {}, part: {}}, false
	default:
		p.one, p.alone = part, true
	}
}

func (p *parts) remove(part limit.Digest) {
	p.alone = p.alone && p.one != part
	delete(p.more, part)
}
