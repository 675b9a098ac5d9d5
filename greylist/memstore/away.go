package memstore

// awayPerEntry is how many entries may be away (only in the backing) for each entry
// that memory has room for. Beyond it an entry that memory drops is forgotten: its
// sender waits once more.
const awayPerEntry = 8

// away keeps the row numbers of the entries that are only in the backing, by the hash
// of their ID. Two IDs with the same hash hide each other, which costs a delay. The
// hash has 64 bits and cannot be predicted.
type away struct {
	rows map[uint64]int64
	most int
}

// row returns the row of an entry, 0 for an ID that is in memory or not stored.
func (a *away) row(hash uint64) int64 { return a.rows[hash] }

func (a *away) add(hash uint64, rowID int64) {
	if a.rows == nil {
		a.rows = make(map[uint64]int64)
	}
	if _, known := a.rows[hash]; known || len(a.rows) < a.most {
		a.rows[hash] = rowID
	}
}

func (a *away) remove(hash uint64) { delete(a.rows, hash) }

func (a *away) clear() { a.rows = nil }
