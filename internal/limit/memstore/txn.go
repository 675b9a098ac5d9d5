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
	id    string
	parts parts
	held  []held
	done  bool
	gone  bool // forgotten; its place in the queue is not valid
	// For the file: written means that the file may have it, dirty that it must be
	// written, and undone that it must be forgotten there.
	written, dirty, undone bool

	ends limit.Millis

	// These arrays are the first memory of parts and held. They are enough for most
	// transactions, and the garbage collector then has only one object to look at.
	onePart [1]string
	fewHeld [2]held
}

func newTxn(id string) *txn {
	t := &txn{id: id}
	t.parts.few, t.held = t.onePart[:0], t.fewHeld[:0]
	return t
}

// held is the share of a transaction in one counter.
type held struct {
	counter  *counter
	reserved int64 // reserved until the End
	counted  int64 // counted in the window at the time at
	at       limit.Millis
}

// txns are all transactions, and a queue of the times at which they end. A transaction
// that continues is appended to the queue again, and its former place becomes invalid.
type txns struct {
	all   map[string]*txn
	queue []due
	parts int // of all
}

// Bounds beyond limit.MaxTransactions.
const (
	// maxParts bounds the recipients of all transactions.
	maxParts = 20 * limit.MaxTransactions
	// maxQueue is the length at which places that are not valid are removed.
	maxQueue = 2 * limit.MaxTransactions
)

type due struct {
	txn *txn
	at  limit.Millis
}

// current reports whether the place is still valid: the transaction was not forgotten
// and has not continued since.
func (d due) current() bool { return !d.txn.gone && d.txn.ends == d.at }

// transaction returns the transaction of an op, and creates it if it is missing.
func (s *Store) transaction(op *limit.Op, now limit.Millis) *txn {
	s.expire(now)
	t := s.running(op, now)
	if t == nil {
		for len(s.txns.all) >= limit.MaxTransactions || s.txns.parts >= maxParts {
			s.expireFirst()
		}
		t = newTxn(op.Txn)
		s.txns.all[op.Txn] = t
	}
	if ends := now + limit.HoldFor.Milliseconds(); t.ends != ends {
		t.ends = ends
		s.txns.queue = append(s.txns.queue, due{t, ends})
		s.txns.compact()
	}
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
		if len(s.txns.queue) == 0 || s.txns.queue[0].at > now {
			return
		}
		first := s.txns.queue[0]
		s.txns.queue = s.txns.queue[1:]
		if first.current() {
			s.forget(first.txn)
		}
	}
}

// compact removes places from the queue that are not valid.
func (t *txns) compact() {
	if len(t.queue) >= maxQueue {
		t.queue = slices.DeleteFunc(t.queue, func(d due) bool { return !d.current() })
	}
}

// expireFirst ends the oldest transaction to make room.
func (s *Store) expireFirst() {
	for len(s.txns.queue) > 0 {
		first := s.txns.queue[0]
		s.txns.queue = s.txns.queue[1:]
		if first.current() {
			s.forget(first.txn)
			return
		}
	}
}

// forget releases what a transaction has reserved.
func (s *Store) forget(t *txn) {
	for i := range t.held {
		s.release(&t.held[i], t.held[i].reserved)
	}
	s.txns.parts -= t.parts.len()
	t.gone = true
	delete(s.txns.all, t.id)
}

// release releases n of what a hold has reserved.
func (s *Store) release(h *held, n int64) {
	if n == 0 {
		return
	}
	if c := s.counterOf(h); c != nil {
		c.reserved = max(c.reserved-n, 0)
	}
}

// counterOf returns the counter of a hold, or nil if it does not exist any more. A
// counter that was dropped can have been created again.
func (s *Store) counterOf(h *held) *counter {
	if !h.counter.gone {
		return h.counter
	}
	return s.tableOf(h.counter.logins).counters[h.counter.id]
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
	few  []string
	many map[string]struct{} // all, when there are more than fewParts
}

const fewParts = 8

func (p *parts) len() int { return max(len(p.few), len(p.many)) }

func (p *parts) has(part string) bool {
	if p.many != nil {
		_, ok := p.many[part]
		return ok
	}
	return slices.Contains(p.few, part)
}

// each returns all parts.
func (p *parts) each() iter.Seq[string] {
	if p.many != nil {
		return maps.Keys(p.many)
	}
	return slices.Values(p.few)
}

// add adds a part that is not in the set.
func (p *parts) add(part string) {
	if p.many == nil && len(p.few) < fewParts {
		p.few = append(p.few, part)
		return
	}
	if p.many == nil {
		p.many = make(map[string]struct{}, 2*fewParts)
		for _, one := range p.few {
			p.many[one] = struct{}{}
		}
		p.few = nil
	}
	p.many[part] = struct{}{}
}

func (p *parts) remove(part string) {
	delete(p.many, part)
	p.few = slices.DeleteFunc(p.few, func(one string) bool { return one == part })
}
