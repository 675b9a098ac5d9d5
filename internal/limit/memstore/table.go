package memstore

import (
	"hash/maphash"
	"iter"
	"math/rand/v2"

	"github.com/postern-mail/postern/internal/limit"
)

// ref names a counter. When the counter has been dropped, its slot may be that of another
// counter, which was born later. The zero ref names none.
type ref struct {
	slot slot
	born uint32
}

// at returns a counter, or nil if it has been dropped.
func (s *Store) at(r ref) *counter {
	if r.slot == 0 || r.slot > s.counters.slots() {
		return nil
	}
	if c := s.counters.at(r.slot); c.born == r.born {
		return c
	}
	return nil
}

// table has the counters of one budget. The counters of one value, such as those of a
// login with several windows, are a list: a mail touches all of them, and only the first
// must be looked up. Usually they are side by side in the slab.
type table struct {
	slab  *slab[counter] // of all tables
	seed  maphash.Seed   // strangers choose the values
	index index          // of the first counter of each value
	len   int            // counters
	most  int
	hand  uint32 // the place of the index at which Purge goes on
}

func newTable(slab *slab[counter], most int) table {
	return table{slab: slab, seed: maphash.MakeSeed(), most: most}
}

func (t *table) hash(value string) uint32 { return uint32(maphash.String(t.seed, value)) }

// first returns the first counter of a value, or nil.
func (t *table) first(value string, hash uint32) *counter {
	return t.at(t.index.find(hash, func(n slot) bool { return t.slab.at(n).id.Value == value }))
}

// at returns the counter in a slot, or nil for 0.
func (t *table) at(n slot) *counter {
	if n == 0 {
		return nil
	}
	return t.slab.at(n)
}

// find returns a counter, or nil.
func (t *table) find(id limit.ID) *counter {
	return t.of(t.first(id.Value, t.hash(id.Value)), id.Rule)
}

// of returns the counter of a rule in the list that begins with c, or nil.
func (t *table) of(c *counter, rule string) *counter {
	for c != nil && c.id.Rule != rule {
		c = t.at(c.next)
	}
	return c
}

// insert adds a counter that the table does not have, in its slot.
func (t *table) insert(c *counter) {
	t.len++
	hash := t.hash(c.id.Value)
	if first := t.first(c.id.Value, hash); first != nil {
		c.id.Value = first.id.Value // one text for all
		c.next, first.next = first.next, c.slot
		return
	}
	t.index.add(hash, c.slot)
}

func (t *table) remove(c *counter) {
	t.len--
	hash := t.hash(c.id.Value)
	first := t.first(c.id.Value, hash)
	switch {
	case first != c:
		for first.next != c.slot {
			first = t.at(first.next)
		}
		first.next = c.next
	case c.next == 0:
		t.index.remove(hash, c.slot)
	default:
		t.index.replace(hash, c.slot, c.next)
	}
}

// all returns the counters.
func (t *table) all() iter.Seq[*counter] { return t.from(0) }

// from returns the counters, those at a place of the index first.
func (t *table) from(place uint32) iter.Seq[*counter] {
	return func(yield func(*counter) bool) {
		for i := range uint32(len(t.index.entries)) {
			for c := range t.list(place + i) {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// list returns the counters of the value at a place of the index, which may be beyond its
// end. The caller may remove the counter that it has.
func (t *table) list(place uint32) iter.Seq[*counter] {
	return func(yield func(*counter) bool) {
		c := t.at(t.index.entries[place&t.index.mask()].thing)
		for c != nil {
			next := t.at(c.next)
			if !yield(c) {
				return
			}
			c = next
		}
	}
}

// looks is how many counters are looked at to choose one to drop.
const looks = 8

// least looks at a few counters and returns the one that has counted least. It leaves out
// those of an op, and returns nil if there are no others.
func (t *table) least(op uint32) *counter {
	var found *counter
	n := 0
	for c := range t.from(rand.Uint32()) {
		if c.op == op {
			continue
		}
		if found == nil || c.weight() < found.weight() {
			found = c
		}
		if n++; n == looks {
			break
		}
	}
	return found
}

func (c *counter) weight() int64 { return c.series.Sum() + c.reserved + c.spread.Len() }
