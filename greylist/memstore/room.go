package memstore

import (
	"math/rand/v2"

	"github.com/postern-mail/postern/greylist"
)

// evictionLooks is how many entries are compared to choose the one to drop.
const evictionLooks = 8

// isFull reports whether a shard has no room for another entry.
func (s *Store) isFull(sh *shard) bool {
	return sh.live >= s.perMap || sh.text.live >= s.text
}

// makeRoom drops entries while the shard is full.
func (s *Store) makeRoom(sh *shard) error {
	for s.isFull(sh) {
		victim := sh.leastWorth()
		if victim < 0 {
			s.hasten(sh)
			return greylist.ErrFull
		}
		s.drop(sh, victim)
	}
	return nil
}

// leastWorth returns the slot of the entry whose loss costs least, among some that are
// as in the backing; -1 if there is none.
func (sh *shard) leastWorth() int {
	victim, looked := -1, 0
	start := rand.IntN(sh.made)
	for i := range sh.made {
		slot := (start + i) % sh.made
		e := sh.slot(slot)
		if !e.is(used) || e.is(dirty|behind) {
			continue
		}
		if victim < 0 || sh.slot(victim).worth() > e.worth() {
			victim = slot
		}
		if looked++; looked == evictionLooks {
			break
		}
	}
	return victim
}

// drop removes an entry that does not wait to be written from memory.
func (s *Store) drop(sh *shard, slot int) {
	if e := sh.slot(slot); e.rowID != 0 && !e.is(deleted) {
		s.leave(sh, e.hash, e.rowID)
	}
	sh.setBehind(sh.slot(slot), false)
	sh.remove(slot)
	sh.evicted++
}

// leave keeps the number of a row whose entry is not in memory, while there is room.
func (s *Store) leave(sh *shard, hash uint64, rowID int64) {
	if !sh.away.add(hash, rowID) {
		s.lost.Add(1)
	}
}
