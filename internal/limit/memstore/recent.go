package memstore

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/postern-mail/postern/internal/limit"
)

// A transaction that has counted is written to the file together with its counters.
// Otherwise a mail server that repeats a request after the daemon was killed would be
// counted twice. What is only reserved is not written: the End counts it.
//
// The form of a transaction is its name, a word, and, unless it is gone, the time at which
// it ends. A transaction that is open has, in addition, the number of its parts and the
// parts, and the number of its shares, and for each one the
// number of the budget, the ID of the counter, what it has counted, and when.
// After its End only a repetition of the End has to be recognized.
const (
	txnGone = iota
	txnOpen
	txnDone
)

// remember has the transaction written to the file.
func (s *Store) remember(t *txn) {
	if !s.followed || t.dirty {
		return
	}
	if len(s.dirtyTxns) >= 2*limit.MaxTransactions { // the file cannot be written
		s.dirtyTxns = slices.DeleteFunc(s.dirtyTxns, s.abandon)
	}
	t.dirty = true
	s.dirtyTxns = append(s.dirtyTxns, t.slot)
}

// abandon reports whether a dirty transaction is gone. Then it is not written.
func (s *Store) abandon(n slot) bool {
	t := s.txns.slab.at(n)
	if t.gone {
		t.dirty = false
		s.txns.reuse(t)
		return true
	}
	return false
}

// takeTxns moves at most most transactions that have to be written to the batch.
func (s *Store) takeTxns(b *Batch, most int) {
	n := min(most, len(s.dirtyTxns))
	s.takenTxns = append(s.takenTxns, s.dirtyTxns[:n]...)
	s.dirtyTxns = slices.Delete(s.dirtyTxns, 0, n)
	e := Encoder{B: s.txnData[:0]}
	for _, n := range s.takenTxns {
		t := s.txns.slab.at(n)
		t.dirty, t.taken = false, true
		if t.gone && !(t.undone && t.written) {
			continue
		}
		t.written = true
		s.encode(t, &e)
		b.Until = max(b.Until, t.ends)
	}
	b.Transactions, s.txnData = e.B, e.B
}

// failedTxns has the transactions of the latest batch written again. They are before the
// others, because one that is undone can have begun again since.
func (s *Store) failedTxns() {
	again := slices.DeleteFunc(slices.Clone(s.takenTxns), func(n slot) bool { return s.txns.slab.at(n).dirty })
	for _, n := range again {
		s.txns.slab.at(n).dirty = true
	}
	s.dirtyTxns = slices.Insert(s.dirtyTxns, 0, again...)
}

// leaveTxns ends the batch before: Failed cannot be called for it any more.
func (s *Store) leaveTxns() {
	for _, n := range s.takenTxns {
		t := s.txns.slab.at(n)
		t.taken = false
		s.txns.reuse(t)
	}
	s.takenTxns = s.takenTxns[:0]
}

func (s *Store) encode(t *txn, e *Encoder) {
	e.B = append(e.B, t.name[:]...)
	switch {
	case t.undone:
		e.Uvarint(txnGone)
		return
	case t.done:
		e.Uvarint(txnDone)
		e.Time(t.ends)
		return
	}
	e.Uvarint(txnOpen)
	e.Time(t.ends)
	e.Uvarint(uint64(t.parts.len()))
	for part := range t.parts.each {
		e.B = append(e.B, part[:]...)
	}
	e.Uvarint(s.sharesOf(t))
	for i := range t.held.len {
		h := t.held.at(i)
		c := s.at(h.counter)
		if c == nil {
			continue
		}
		e.Uvarint(uint64(budgetOf(c.logins)))
		e.ID(c.id)
		e.Varint(h.counted)
		e.Time(h.at)
	}
}

// sharesOf counts the shares of a transaction in counters that exist.
func (s *Store) sharesOf(t *txn) (n uint64) {
	for i := range t.held.len {
		if s.at(t.held.at(i).counter) != nil {
			n++
		}
	}
	return n
}

// FillTransactions adds the transactions of a file to memory, after its counters. The
// batches are in the order in which they were written. What memory has is newer. It
// returns an error for each batch that cannot be read to its end, else nil.
func (s *Store) FillTransactions(batches [][]byte, now time.Time) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make(map[limit.Digest]*txn)
	failed := make([]error, len(batches))
	for i, b := range batches {
		d := Decoder{B: b}
		for len(d.B) > 0 && d.Err == nil {
			if t := s.decodeTxn(&d); d.Err == nil {
				found[t.name] = t
			}
		}
		failed[i] = d.Err
	}
	at := s.millis(now)
	maps.DeleteFunc(found, func(name limit.Digest, t *txn) bool { return t.undone || t.ends <= at || s.txns.find(name) != nil })
	latest := slices.SortedFunc(maps.Values(found), func(a, b *txn) int { return cmp.Compare(a.ends, b.ends) })
	for _, t := range latest[max(len(latest)-limit.MaxTransactions, 0):] {
		if s.txns.full() {
			break
		}
		added := s.txns.add(t.name)
		t.slot, t.ends = added.slot, min(t.ends, at+limit.HoldFor.Milliseconds()) // the clock was set back
		*added = *t
		s.txns.parts += t.parts.len()
		s.txns.link(added)
	}
	return failed
}

// decodeTxn reads a transaction. Shares in counters that do not exist any more are left
// out.
func (s *Store) decodeTxn(d *Decoder) *txn {
	t := &txn{name: decodeDigest(d), written: true}
	switch d.Uvarint() {
	case txnGone:
		t.undone = true
		return t
	case txnDone:
		t.done, t.ends = true, d.Time()
		return t
	case txnOpen:
		t.ends = d.Time()
	default:
		d.Err = errCode
		return t
	}
	for n := d.Uvarint(); n > 0 && d.Err == nil; n-- {
		if part := decodeDigest(d); !t.parts.has(part) {
			t.parts.add(part)
		}
	}
	for n := d.Uvarint(); n > 0 && d.Err == nil; n-- {
		budget, id := d.Uvarint(), d.ID()
		counted, at := d.Varint(), d.Time()
		if budget >= budgets {
			d.Err = errCode
			return t
		}
		if c := s.tables[budget].find(id); c != nil {
			h := t.held.add(c)
			h.counted, h.at = counted, at
		}
	}
	return t
}

func decodeDigest(d *Decoder) (digest limit.Digest) {
	copy(digest[:], d.Octets(uint64(len(digest))))
	return digest
}
