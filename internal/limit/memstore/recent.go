package memstore

import (
	"cmp"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/postern-mail/postern/internal/limit"
)

// A transaction that has counted is written to the file together with its counters.
// Otherwise a mail server that repeats a request after the daemon was killed would be
// counted twice. What is only reserved is not written: the End counts it.
//
// The form of a transaction is the length of its ID and the ID, a word, and, unless it
// is gone, the time at which it ends. A transaction that is open has, in addition, the
// number of its parts and the parts, and the number of its shares, and for each one the
// ID of the counter, what it has counted, and when. After its End only a repetition of
// the End has to be recognized.
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
		s.dirtyTxns = slices.DeleteFunc(s.dirtyTxns, func(t *txn) bool { return t.gone })
	}
	t.dirty = true
	s.dirtyTxns = append(s.dirtyTxns, t)
}

// takeTxns moves at most most transactions that have to be written to the batch.
func (s *Store) takeTxns(b *Batch, most int) {
	n := min(most, len(s.dirtyTxns))
	for _, t := range s.dirtyTxns[:n] {
		t.dirty = false
		if t.gone && !(t.undone && t.written) {
			continue
		}
		t.written = true
		b.Transactions = t.appendTo(b.Transactions)
		b.Until = max(b.Until, t.ends)
		b.txns = append(b.txns, t)
	}
	if s.dirtyTxns = s.dirtyTxns[n:]; len(s.dirtyTxns) == 0 {
		s.dirtyTxns = nil // with all that were before
	}
}

func (t *txn) appendTo(b []byte) []byte {
	b = appendText(b, t.id)
	switch {
	case t.undone:
		return binary.AppendUvarint(b, txnGone)
	case t.done:
		return binary.AppendVarint(binary.AppendUvarint(b, txnDone), t.ends)
	}
	b = binary.AppendVarint(binary.AppendUvarint(b, txnOpen), t.ends)
	b = binary.AppendUvarint(b, uint64(t.parts.len()))
	for part := range t.parts.each() {
		b = appendText(b, part)
	}
	b = binary.AppendUvarint(b, uint64(len(t.held)))
	for i := range t.held {
		h := &t.held[i]
		b = binary.AppendVarint(binary.AppendVarint(appendText(b, h.counter.id), h.counted), h.at)
	}
	return b
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// FillTransactions adds the transactions of a file to memory, after its counters. The
// batches are in the order in which they were written. What memory has is newer.
func (s *Store) FillTransactions(batches [][]byte, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make(map[string]*txn)
	for _, b := range batches {
		for len(b) > 0 {
			t, rest, err := s.readTxn(b)
			if err != nil {
				return err
			}
			found[t.id], b = t, rest
		}
	}
	at := s.millis(now)
	maps.DeleteFunc(found, func(id string, t *txn) bool { return t.undone || t.ends <= at || s.txns.all[id] != nil })
	latest := slices.SortedFunc(maps.Values(found), func(a, b *txn) int { return cmp.Compare(a.ends, b.ends) })
	for _, t := range latest[max(len(latest)-limit.MaxTransactions, 0):] {
		if len(s.txns.all) >= limit.MaxTransactions || s.txns.parts >= maxParts {
			return nil
		}
		t.ends = min(t.ends, at+limit.HoldFor.Milliseconds()) // the clock was set back
		s.txns.all[t.id] = t
		s.txns.parts += t.parts.len()
		s.txns.queue = append(s.txns.queue, due{t, t.ends})
	}
	return nil
}

var errTxn = errors.New("a transaction in the file cannot be read")

// readTxn reads a transaction. Shares in counters that do not exist any more are left out.
func (s *Store) readTxn(b []byte) (*txn, []byte, error) {
	r := reader{b: b}
	t := newTxn(r.text())
	t.written = true
	switch r.uvarint() {
	case txnGone:
		t.undone = true
		return t, r.b, r.err
	case txnDone:
		t.done, t.ends = true, r.varint()
		return t, r.b, r.err
	case txnOpen:
		t.ends = r.varint()
	default:
		return nil, nil, errTxn
	}
	for range r.uvarint() {
		part := r.text()
		if r.err != nil {
			return nil, nil, r.err
		}
		if !t.parts.has(part) {
			t.parts.add(part)
		}
	}
	for range r.uvarint() {
		id, counted, at := r.text(), r.varint(), r.varint()
		if r.err != nil {
			return nil, nil, r.err
		}
		if c := s.counter(id); c != nil {
			t.held = append(t.held, held{counter: c, counted: counted, at: at})
		}
	}
	return t, r.b, r.err
}

// counter returns a counter of any budget, or nil.
func (s *Store) counter(id string) *counter {
	for i := range s.tables {
		if c := s.tables[i].counters[id]; c != nil {
			return c
		}
	}
	return nil
}

// reader reads the form of transactions. After an error it returns zero values.
type reader struct {
	b   []byte
	err error
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.b)
	return cut(r, n, size)
}

func (r *reader) varint() int64 {
	n, size := binary.Varint(r.b)
	return cut(r, n, size)
}

func cut[N int64 | uint64](r *reader, n N, size int) N {
	if size <= 0 || r.err != nil {
		r.err = errTxn
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) text() string {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.err = errTxn
		return ""
	}
	text := string(r.b[:n])
	r.b = r.b[n:]
	return text
}
