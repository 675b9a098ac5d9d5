package memstore

import (
	"runtime"

	"github.com/postern-mail/postern/greylist"
)

// Fill adds rows of the backing, before the store is used or after Rewrite. While there
// is room an entry is kept in memory, merged with what memory knows about the ID. Of
// rows with the same ID the first counts. The rows of a shard are added together,
// because the processor's cache holds one shard, but not all.
func (s *Store) Fill(rows []Row) {
	hashes := make([]uint64, len(rows))
	var ends [shards + 1]int32 // of the rows of each shard in order; first, how many there are
	for i := range rows {
		hashes[i] = s.hash(rows[i].ID)
		ends[shardOf(hashes[i])+1]++
	}
	for i := range shards {
		ends[i+1] += ends[i]
	}
	order := make([]int32, len(rows))
	for i, hash := range hashes {
		end := &ends[shardOf(hash)]
		order[*end] = int32(i)
		*end++
	}
	first := int32(0)
	for i, end := range ends[:shards] {
		s.fillShard(&s.shards[i], rows, hashes, order[first:end])
		first = end
	}
}

// fillShard adds the rows with the given indices, which belong to the shard.
func (s *Store) fillShard(sh *shard, rows []Row, hashes []uint64, which []int32) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	runtime.KeepAlive(sh.warm(hashes, which))
	for _, i := range which {
		hash, row := hashes[i], &rows[i]
		switch slot := sh.find(hash, row.ID); {
		case slot >= 0:
			sh.learn(slot, *row)
		case sh.away.row(hash) != 0:
		case s.isFull(sh):
			s.fillFull(sh, hash, row)
		default:
			sh.put(hash, *row)
		}
	}
}

// fillFull adds a row to a shard that has no room for another entry. When the number of
// the row has none either, a row that is worth more takes the place of an entry: otherwise
// the oldest rows would be forgotten, and with them what was allowed by hand.
func (s *Store) fillFull(sh *shard, hash uint64, row *Row) {
	if sh.away.add(hash, row.RowID) {
		return
	}
	s.lost.Add(1) // the row, or the entry
	var e entry
	e.set(isClient, row.ID.IsClient())
	e.setState(state{row.Triplet, row.Client})
	victim := sh.leastWorth()
	if victim < 0 || sh.slot(victim).rowID == 0 || sh.slot(victim).worth() >= e.worth() {
		return
	}
	sh.remove(victim)
	sh.evicted++
	if !s.isFull(sh) { // its ID may be longer than that of the victim
		sh.put(hash, *row)
	}
}

// put adds an entry for a row that is not in memory.
func (sh *shard) put(hash uint64, row Row) {
	e := sh.slot(sh.add(hash, row.ID))
	e.rowID = row.RowID
	e.setState(state{row.Triplet, row.Client})
}

// Adopt adds an entry that the backing does not have under this ID, while memory has
// room.
func (s *Store) Adopt(e greylist.Entry) {
	hash := s.hash(e.ID)
	sh := &s.shards[shardOf(hash)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	slot := sh.find(hash, e.ID)
	switch {
	case slot >= 0:
		known := sh.entry(slot).Merge(e)
		sh.slot(slot).setState(state{known.Triplet, known.Client})
	case sh.away.row(hash) != 0:
		return
	case s.isFull(sh):
		s.lost.Add(1)
		return
	default:
		sh.put(hash, Row{Entry: e})
		slot = sh.find(hash, e.ID)
	}
	s.mark(sh, slot)
}

// learn merges a row with what is known about its ID, unless the ID already has a
// row. What the backing did not have before is then written to it.
func (sh *shard) learn(slot int, row Row) {
	e := sh.slot(slot)
	if e.rowID != 0 {
		return
	}
	e.rowID = row.RowID
	if !e.is(deleted) {
		both := sh.entry(slot).Merge(row.Entry)
		e.setState(state{both.Triplet, both.Client})
	}
}
