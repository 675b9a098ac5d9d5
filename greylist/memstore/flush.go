package memstore

import (
	"cmp"
	"iter"
	"math"
	"slices"
)

// Batch is a set of changed entries, for a backing to write.
type Batch struct {
	Rows   []Row // write sets RowID of rows that get one
	places []place
}

// place is where a row of a batch comes from. An entry that waits to be written
// keeps its slot.
type place struct {
	shard, slot int32
	version     uint16
}

// Take copies the changed entries, beginning at the shard from, until it has at least
// limit of them; the last shard is copied whole. next is the shard to continue from,
// 0 after the last. The caller must pass the batch to Written or to Failed before the
// next Take.
func (s *Store) Take(from, limit int) (b *Batch, next int) {
	b = new(Batch)
	for next = from; next < shards && len(b.Rows) < limit; next++ {
		b.take(s, next)
	}
	return b, next % shards
}

func (b *Batch) take(s *Store, shard int) {
	sh := &s.shards[shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, slot := range sh.dirty {
		b.Rows = append(b.Rows, sh.row(int(slot)))
		b.places = append(b.places, place{int32(shard), slot, sh.slot(int(slot)).version})
	}
	sh.dirty = sh.dirty[:0]
}

// Parts returns the batch in parts of at most size rows, in the order of the rows in
// the backing, with new rows at the end. So a page of the backing is changed by one
// part only, or by two. Each part must be passed to Written or to Failed.
func (b *Batch) Parts(size int) iter.Seq[*Batch] {
	order := make([]int, len(b.Rows))
	for i := range order {
		order[i] = i
	}
	at := func(i int) int64 {
		if id := b.Rows[i].RowID; id != 0 {
			return id
		}
		return math.MaxInt64
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(at(i), at(j)) })
	return func(yield func(*Batch) bool) {
		for part := range slices.Chunk(order, size) {
			some := &Batch{make([]Row, 0, len(part)), make([]place, 0, len(part))}
			for _, i := range part {
				some.Rows, some.places = append(some.Rows, b.Rows[i]), append(some.places, b.places[i])
			}
			if !yield(some) {
				return
			}
		}
	}
}

// Written records that the backing has written the batch.
func (s *Store) Written(b *Batch) {
	for i, p := range b.places {
		s.written(p, b.Rows[i].RowID)
	}
}

func (s *Store) written(p place, rowID int64) {
	sh := &s.shards[p.shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.slot(int(p.slot))
	e.rowID = rowID
	switch {
	case e.version != p.version: // changed again
		sh.dirty = append(sh.dirty, p.slot)
	case e.is(deleted):
		e.rowID = 0
		s.drop(sh, int(p.slot))
	default:
		e.set(dirty, false)
	}
}

// Failed puts the batch back, to be taken again.
func (s *Store) Failed(b *Batch) {
	for _, p := range b.places {
		sh := &s.shards[p.shard]
		sh.mu.Lock()
		sh.dirty = append(sh.dirty, p.slot)
		sh.mu.Unlock()
	}
}

// Pending returns how many changes wait to be written.
func (s *Store) Pending() int {
	n := 0
	for i := range s.shards {
		s.shards[i].mu.Lock()
		n += len(s.shards[i].dirty)
		s.shards[i].mu.Unlock()
	}
	return n
}

// Rewrite marks every entry as missing in the backing, which is new and empty.
func (s *Store) Rewrite() {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		sh.away.clear()
		sh.all(func(slot int) {
			sh.slot(slot).rowID = 0
			if !sh.slot(slot).is(deleted) {
				s.mark(sh, slot)
			}
		})
		sh.mu.Unlock()
	}
}
