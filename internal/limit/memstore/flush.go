package memstore

import (
	"encoding/binary"
	"errors"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/postern-mail/postern/internal/limit"
)

// changes are the changes that have to be written to a file. The zero value is for a
// store without a file.
type changes struct {
	followed      bool
	dirty         []ref
	gone          []limit.ID
	dirtyTxns     []slot
	takenTxns     []slot // those in the latest batch
	blocksChanged bool
	rewrite       bool // the file knows nothing

	// unsettled are the counters that were in a batch since the last Settled, which
	// began the round. Only the caller of TakeBatch uses them.
	unsettled []ref
	round     uint32

	rows    []Row  // the memory of the rows that are returned
	data    []byte // likewise, of their data
	txnData []byte // likewise, of transactions
}

// maxGone bounds the counters that wait to be removed from the file. Beyond it the
// file is written anew.
const maxGone = 100_000

// Follow makes the store record its changes.
func (s *Store) Follow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followed, s.round = true, 1
}

func (s *Store) changed(c *counter) {
	if s.followed && !c.dirty {
		c.dirty = true
		s.dirty = s.addRef(s.dirty, c)
	}
}

// addRef adds a counter to a list that has each counter once. Counters that were dropped
// can be in the list too: before they are the most of it, they are removed.
func (s *Store) addRef(list []ref, c *counter) []ref {
	if len(list) >= 2*(s.tables[logins].most+s.tables[strangers].most) {
		list = slices.DeleteFunc(list, func(r ref) bool { return s.at(r) == nil })
	}
	return append(list, c.ref)
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
	ID     limit.ID
	Logins bool
	Window time.Duration
	Last   limit.Millis
	Data   []byte
}

// Batch is what has to be written to the file, in this order. If that fails, the caller
// passes the batch to Failed before it takes the next one. Rows and Transactions are
// valid until the next call for rows.
type Batch struct {
	Clear  bool // first remove everything
	Gone   []limit.ID
	Rows   []Row
	Blocks []limit.Block // nil: as they were
	// Transactions have counted into the rows. They are needed until the time Until.
	Transactions []byte
	Until        limit.Millis
	More         bool

	counters []ref
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
	s.leaveTxns()
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
	b.counters = s.dirty[:n]
	b.Rows = s.rowsOf(b.counters)
	for _, r := range b.counters {
		if c := s.at(r); c != nil {
			c.dirty = false
			s.unsettle(c)
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

func (s *Store) unsettle(c *counter) {
	if c.round != s.round {
		c.round = s.round
		s.unsettled = s.addRef(s.unsettled, c)
	}
}

// Unsettled returns the counters that were in a batch since the last Settled, in the
// order of their IDs, at most most at once. The rows are valid until the next call for
// rows.
func (s *Store) Unsettled(most int) iter.Seq[[]Row] {
	return func(yield func([]Row) bool) {
		for part := range slices.Chunk(s.sortUnsettled(most), most) {
			s.mu.Lock()
			rows := s.rowsOf(part)
			s.mu.Unlock()
			if !yield(rows) {
				return
			}
		}
	}
}

// sortUnsettled returns the unsettled counters in the order of their IDs. It copies the IDs
// of at most most counters at once, so that no request waits for long.
func (s *Store) sortUnsettled(most int) []ref {
	type named struct {
		ref
		id limit.ID
	}
	all := make([]named, 0, len(s.unsettled))
	for part := range slices.Chunk(s.unsettled, most) {
		s.mu.Lock()
		for _, r := range part {
			if c := s.at(r); c != nil {
				all = append(all, named{r, c.id})
			}
		}
		s.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b named) int { return a.id.Compare(b.id) })
	sorted := make([]ref, len(all))
	for i := range all {
		sorted[i] = all[i].ref
	}
	return sorted
}

// Settled notes that all Unsettled rows were written.
func (s *Store) Settled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsettled = nil
	s.round++
}

// Failed notes that a batch was not written.
func (s *Store) Failed(b *Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rewrite = s.rewrite || b.Clear
	s.blocksChanged = s.blocksChanged || b.Blocks != nil
	s.gone = append(b.Gone, s.gone...)
	for _, r := range b.counters {
		if c := s.at(r); c != nil {
			s.changed(c)
		}
	}
	s.failedTxns()
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
		for c := range s.tables[i].all() {
			s.changed(c)
		}
	}
	for t := range s.txns.all {
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

// rowsOf returns the rows of counters that are not gone.
func (s *Store) rowsOf(counters []ref) []Row {
	s.rows, s.data = s.rows[:0], s.data[:0]
	for _, r := range counters {
		c := s.at(r)
		if c == nil {
			continue
		}
		start := len(s.data)
		s.data = c.append(s.data)
		s.rows = append(s.rows, Row{c.id, c.logins, time.Duration(c.window) * time.Millisecond, c.last, s.data[start:]})
	}
	return s.rows
}

// append appends the data of a row.
func (c *counter) append(b []byte) []byte {
	b = binary.AppendVarint(b, c.peak)
	for _, at := range c.alarms {
		b = binary.AppendVarint(b, at)
	}
	return c.spread.Append(c.series.Append(b))
}

var errRow = errors.New("a counter in the file cannot be read")

// Fill adds a row of a file to memory, unless memory has the counter already. unsettled
// makes it one of Unsettled.
func (s *Store) Fill(r Row, unsettled bool) error {
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
	if err != nil || r.ID.Value == "" || c.window < limit.MinWindow.Milliseconds() {
		return errRow
	}
	c.networks = c.spread.Len() > 0
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tableOf(r.Logins)
	switch {
	case t.find(c.id) != nil:
	case t.len >= t.most:
		s.removed(c)
	default:
		c = s.add(t, c)
		if s.rewrite { // a new file replaces the one before
			s.changed(c)
		}
		if unsettled {
			s.unsettle(c)
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

// Purge removes blocks that have ended. It also looks at the counters of the next values,
// at most most in each table, and removes those that count nothing any more.
func (s *Store) Purge(now time.Time, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.millis(now)
	for i := range s.tables {
		t := &s.tables[i]
		for range min(most, len(t.index.entries)) {
			t.hand++
			for c := range t.list(t.hand) {
				if c.reserved == 0 && at-c.last > limit.KeepFor(c.logins, c.window) {
					s.drop(t, c)
				}
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
