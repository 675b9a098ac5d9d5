package memstore

import "math/bits"

// awayPerEntry is how many entries may be away (only in the backing) for each entry
// that memory has room for. Beyond it an entry that memory drops is forgotten: its
// sender waits once more.
const awayPerEntry = 8

// away keeps the row numbers of the entries that are only in the backing, by the hash
// of their ID. Two IDs with the same hash hide each other, which costs a delay. The
// hash has 64 bits and cannot be predicted.
//
// It is a table with open addressing and linear probing, which grows by a quarter.
// That needs half of the memory of a map.
type away struct {
	places []awayRow
	count  int
	most   int
}

// awayRow is the row of an entry; a rowID of 0 is a free place.
type awayRow struct {
	hash  uint64
	rowID int64
}

const (
	// awaySize is the memory for one row, with the free places.
	awaySize = 20
	// minAway is the size of a new table.
	minAway = 16
)

// row returns the row of an entry, 0 for an ID that is in memory or not stored.
func (a *away) row(hash uint64) int64 {
	if a.count == 0 {
		return 0
	}
	return a.places[a.find(hash)].rowID
}

// home returns the place where the search for a hash begins. It uses bits that choose
// neither the shard nor the chain of a table.
func (a *away) home(hash uint64) int {
	high, _ := bits.Mul64(hash<<shardBits, uint64(len(a.places)))
	return int(high)
}

// find returns the place of a hash, or the free place where it belongs. There is always
// a free place.
func (a *away) find(hash uint64) int {
	for i := a.home(hash); ; i = a.after(i) {
		if p := &a.places[i]; p.rowID == 0 || p.hash == hash {
			return i
		}
	}
}

func (a *away) after(i int) int {
	if i++; i < len(a.places) {
		return i
	}
	return 0
}

// add adds a row, or changes the row of a hash. It reports false when there is no room.
func (a *away) add(hash uint64, rowID int64) bool {
	if rowID == 0 {
		return true
	}
	if known := a.row(hash) != 0; !known {
		if a.count >= a.most {
			return false
		}
		if a.count >= len(a.places)-len(a.places)/8 {
			a.grow()
		}
		a.count++
	}
	a.places[a.find(hash)] = awayRow{hash, rowID}
	return true
}

func (a *away) grow() {
	old := a.places
	a.places = make([]awayRow, max(len(old)+len(old)/4, minAway))
	for _, p := range old {
		if p.rowID != 0 {
			a.places[a.find(p.hash)] = p
		}
	}
}

func (a *away) remove(hash uint64) {
	if a.row(hash) == 0 {
		return
	}
	a.count--
	free := a.find(hash)
	a.places[free] = awayRow{}
	// What follows is moved to where a search still finds it.
	for i := a.after(free); a.places[i].rowID != 0; i = a.after(i) {
		p := a.places[i]
		a.places[i] = awayRow{}
		a.places[a.find(p.hash)] = p
	}
}

func (a *away) clear() { a.places, a.count = nil, 0 }
