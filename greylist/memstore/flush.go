package memstore

// Batch is what changed since it was last written, for a backing to write.
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

// Take copies the changed entries of the shards from one on, until it has limit
// of them (more by what one shard has), and returns the shard to go on from, 0
// after the last. The caller gives the batch to Written or to Failed; there is
// one batch at a time.
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
		b.places = append(b.places, place{int32(shard), slot, sh.slots[slot].version})
	}
	sh.dirty = sh.dirty[:0]
}

// Written notes that the backing holds the batch.
func (s *Store) Written(b *Batch) {
	for i, p := range b.places {
		s.written(p, b.Rows[i].RowID)
	}
}

func (s *Store) written(p place, rowID int64) {
	sh := &s.shards[p.shard]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := &sh.slots[p.slot]
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

// Failed puts the batch back.
func (s *Store) Failed(b *Batch) {
	for _, p := range b.places {
		sh := &s.shards[p.shard]
		sh.mu.Lock()
		sh.dirty = append(sh.dirty, p.slot)
		sh.mu.Unlock()
	}
}

// Pending counts the changes that wait to be written.
func (s *Store) Pending() int {
	n := 0
	for i := range s.shards {
		s.shards[i].mu.Lock()
		n += len(s.shards[i].dirty)
		s.shards[i].mu.Unlock()
	}
	return n
}

// Rewrite marks everything as unknown to the backing, which has started anew.
func (s *Store) Rewrite() {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		sh.away.clear()
		sh.all(func(slot int) {
			sh.slots[slot].rowID = 0
			if !sh.slots[slot].is(deleted) {
				s.mark(sh, slot)
			}
		})
		sh.mu.Unlock()
	}
}
