package memstore

// awayPerEntry is how many entries may be away for each that memory has room
// for. Beyond it what memory gives up is forgotten: its sender waits once more.
const awayPerEntry = 8

// away knows, by the hash of their ID, the rows of the entries that only the
// backing holds. Two IDs with one hash, of 64 bits that no one can foresee, hide
// one another, which costs a delay.
type away struct {
	rows map[uint64]int64
	most int
}

// row is 0 for an ID that is in memory or nowhere.
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
