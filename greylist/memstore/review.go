package memstore

import (
	"time"

	"github.com/postern-mail/postern/greylist"
)

// shortLife is the shortest lifetime of entries whose latest sighting may be written late.
// If the process is killed, such an entry ends earlier by the time that it was late: by
// minutes of a day or more.
const shortLife = 24 * time.Hour

// renewal records a sighting that changes nothing but the time of the latest one, for
// Review. It returns false if the entry must be written at once: it is not in the backing
// as it was, it does not live for long, or there are too many such entries, which cannot
// be dropped.
func (s *Store) renewal(p spot, next state, l greylist.Limits) bool {
	if p.slot < 0 {
		return false
	}
	e := p.shard.slot(p.slot)
	if e.rowID == 0 || e.is(dirty|deleted) || !e.isRenewed(next, l) || !s.canWait(p.shard) {
		return false
	}
	e.setState(next)
	p.shard.setBehind(e, true)
	return true
}

// setBehind sets or clears the flag of an entry, and counts.
func (sh *shard) setBehind(e *entry, on bool) {
	switch {
	case on && !e.is(behind):
		sh.behind++
	case !on && e.is(behind):
		sh.behind--
	}
	e.set(behind, on)
}

// isRenewed reports whether next differs in the latest sighting only, and that may be
// written late. While a triplet has not passed, its latest sighting decides nothing.
func (e *entry) isRenewed(next state, l greylist.Limits) bool {
	life := l.PassTTL
	if e.is(isClient) {
		life = l.AllowTTL
	}
	known := e.state()
	waits := !e.is(isClient) && known.triplet.Passed == 0
	known.triplet.Last, known.client.Last = next.triplet.Last, next.client.Last
	return known == next && (waits || life >= shortLife)
}

// canWait reports whether another entry of a shard may be behind: less than a quarter are,
// or there is room.
func (s *Store) canWait(sh *shard) bool {
	return sh.behind < sh.live/4 || sh.live < s.perMap/2 && sh.text.live < s.text/2
}

// newRow makes an entry that had expired, and begins anew, get a new row. The old row
// expires in the backing too, or Review finds it.
func (p spot) newRow() {
	if p.slot >= 0 && !p.shard.slot(p.slot).is(deleted) {
		p.shard.slot(p.slot).rowID = 0
	}
}

// Review compares rows of the backing with memory. It returns what is to be written to
// them, which the caller must pass to Written or to Failed, and which of them are not
// needed, because their ID has a newer row.
func (s *Store) Review(rows []Row) (renewed *Batch, outdated []Row) {
	renewed = new(Batch)
	for i := range rows {
		row := &rows[i]
		hash := s.hash(row.ID)
		shard := shardOf(hash)
		sh := &s.shards[shard]
		sh.mu.Lock()
		slot := sh.find(hash, row.ID)
		switch newest := sh.newest(hash, slot); {
		case newest > row.RowID && slot >= 0:
			outdated = append(outdated, Row{Entry: row.Entry, RowID: row.RowID, Deleted: true})
		case newest == row.RowID && slot >= 0 && sh.slot(slot).is(behind):
			e := sh.slot(slot)
			sh.setBehind(e, false)
			e.set(dirty, true)
			renewed.Rows = append(renewed.Rows, sh.row(slot))
			renewed.places = append(renewed.places, place{int32(shard), int32(slot), e.version})
		}
		sh.mu.Unlock()
	}
	return renewed, outdated
}

// newest returns the row of an entry, in memory (in a slot) or only in the backing (-1).
func (sh *shard) newest(hash uint64, slot int) int64 {
	if slot >= 0 {
		return sh.slot(slot).rowID
	}
	return sh.away.row(hash)
}

// Current returns the entry of a row of the backing as it is now; ok is false when it is
// gone, or its ID has a newer row.
func (s *Store) Current(row Row) (e greylist.Entry, ok bool) {
	hash := s.hash(row.ID)
	sh := &s.shards[shardOf(hash)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	slot := sh.find(hash, row.ID)
	switch {
	case sh.newest(hash, slot) > row.RowID, slot >= 0 && sh.slot(slot).is(deleted):
		return greylist.Entry{}, false
	case slot >= 0:
		return sh.entry(slot), true
	}
	return row.Entry, true
}

// Hasten has Take return all entries that have changed, also those that may be written late.
func (s *Store) Hasten() {
	for i := range s.shards {
		s.shards[i].mu.Lock()
		s.hasten(&s.shards[i])
		s.shards[i].mu.Unlock()
	}
}

func (s *Store) hasten(sh *shard) {
	if sh.behind == 0 {
		return
	}
	sh.all(func(slot int) {
		if sh.slot(slot).is(behind) {
			s.mark(sh, slot)
		}
	})
}
