package memstore

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/postern-mail/postern/internal/limit"
)

// changes are the changes that have to be written to a file. The zero value is for a
// store without a file.
type changes struct {
	followed      bool
	dirty         []*counter
	gone          []string
	dirtyTxns     []*txn
	blocksChanged bool
	rewrite       bool // the file knows nothing
}

// maxGone bounds the counters that wait to be removed from the file. Beyond it the
// file is written anew.
const maxGone = 100_000

// Follow makes the store record its changes.
func (s *Store) Follow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followed = true
}

func (s *Store) changed(c *counter) {
	if s.followed && !c.dirty {
		c.dirty = true
		s.dirty = append(s.dirty, c)
	}
}

func (s *Store) removed(c *counter) {
	if !s.followed || s.rewrite {
		return
	}
	if s.gone = append(s.gone, c.id); len(s.gone) > maxGone {
		s.startOver()
	}
}

// Row is a counter in the form for files.
type Row struct {
	ID     string
	Logins bool
	Window time.Duration
	Last   limit.Millis
	Data   []byte
}

// Batch is what has to be written to the file, in this order. If that fails, the caller
// passes the batch to Failed.
type Batch struct {
	Clear  bool // first remove everything
	Gone   []string
	Rows   []Row
	Blocks []limit.Block // nil: as they were
	// Transactions have counted into the rows. They are needed until the time Until.
	Transactions []byte
	Until        limit.Millis
	More         bool

	counters []*counter
	txns     []*txn
}

// Empty reports whether there is nothing to write.
func (b *Batch) Empty() bool {
	return !b.Clear && len(b.Gone)+len(b.Rows)+len(b.Transactions) == 0 && b.Blocks == nil
}

// TakeBatch returns the next changes, of at most most counters and most transactions.
// A transaction is in the batch of its counters or in a later one.
func (s *Store) TakeBatch(most int) *Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &Batch{Clear: s.rewrite, Gone: s.gone}
	s.rewrite, s.gone = false, nil
	if s.blocksChanged || b.Clear {
		b.Blocks = slices.Collect(maps.Values(s.blocks))
		if b.Blocks == nil {
			b.Blocks = []limit.Block{}
		}
		s.blocksChanged = false
	}
	n := min(most, len(s.dirty))
	b.Rows, b.counters = make([]Row, 0, n), make([]*counter, 0, n)
	for _, c := range s.dirty[:n] {
		c.dirty = false
		if !c.gone {
			b.Rows = append(b.Rows, c.row())
			b.counters = append(b.counters, c)
		}
	}
	if s.dirty = s.dirty[n:]; len(s.dirty) == 0 {
		s.dirty = nil // with all that were before
	}
	if len(s.dirty) == 0 {
		s.takeTxns(b, most)
	}
	b.More = len(s.dirty)+len(s.dirtyTxns) > 0
	return b
}

// Failed notes that a batch was not written.
func (s *Store) Failed(b *Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rewrite = s.rewrite || b.Clear
	s.blocksChanged = s.blocksChanged || b.Blocks != nil
	s.gone = append(b.Gone, s.gone...)
	for _, c := range b.counters {
		s.changed(c)
	}
	for _, t := range b.txns {
		s.remember(t)
	}
	if len(s.gone) > maxGone {
		s.startOver()
	}
}

// Rewrite notes that the file was lost with its content.
func (s *Store) Rewrite() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startOver()
}

func (s *Store) startOver() {
	s.rewrite, s.gone, s.blocksChanged = true, nil, true
	for i := range s.tables {
		for _, c := range s.tables[i].counters {
			s.changed(c)
		}
	}
	for _, t := range s.txns.all {
		if t.written {
			s.remember(t)
		}
	}
}

// Pending counts the changes that wait to be written.
func (s *Store) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.dirty) + len(s.dirtyTxns) + len(s.gone)
	if s.blocksChanged {
		n++
	}
	return n
}

// usualRow is the usual size of a counter's data.
const usualRow = 64

func (c *counter) row() Row {
	b := binary.AppendVarint(make([]byte, 0, usualRow), c.peak)
	for _, at := range c.alarms {
		b = binary.AppendVarint(b, at)
	}
	b = c.spread.Append(c.series.Append(b))
	return Row{ID: c.id, Logins: c.logins, Window: time.Duration(c.window) * time.Millisecond, Last: c.last, Data: b}
}

var errRow = errors.New("a counter in the file cannot be read")

// Fill adds a row of a file to memory, unless memory has the counter already.
func (s *Store) Fill(r Row) error {
	c := &counter{id: r.ID, window: r.Window.Milliseconds(), logins: r.Logins, last: r.Last}
	b := r.Data
	for _, n := range []*int64{&c.peak, &c.alarms[0], &c.alarms[1]} {
		v, size := binary.Varint(b)
		if size <= 0 {
			return errRow
		}
		*n, b = v, b[size:]
	}
	b, err := c.series.Read(b)
	if err == nil {
		_, err = c.spread.Read(b)
	}
	if err != nil || c.window < limit.MinWindow.Milliseconds() {
		return errRow
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tableOf(r.Logins)
	switch {
	case t.counters[c.id] != nil:
	case len(t.counters) >= t.most:
		s.removed(c)
	default:
		t.counters[c.id] = c
		if s.rewrite { // a new file replaces the one before
			s.changed(c)
		}
	}
	return nil
}

// FillBlocks adds the blocks of a file to those in memory.
func (s *Store) FillBlocks(blocks []limit.Block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blocks {
		if _, known := s.blocks[b.Login]; !known && len(s.blocks) < limit.MaxBlocks {
			s.blocks[b.Login] = b
		}
	}
}

// Purge removes blocks that have ended. It also looks at most counters, and removes
// those that count nothing any more.
func (s *Store) Purge(now time.Time, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.millis(now)
	for i := range s.tables {
		n := 0
		for _, c := range s.tables[i].counters {
			if n++; n > most {
				break
			}
			if c.reserved == 0 && at-c.last > limit.KeepFor(c.logins, c.window) {
				s.drop(&s.tables[i], c)
			}
		}
	}
	for login, b := range s.blocks {
		if !b.Active(now) {
			delete(s.blocks, login)
			s.blocksChanged = true
		}
	}
	s.expire(at)
}
