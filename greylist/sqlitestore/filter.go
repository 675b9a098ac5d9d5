package sqlitestore

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"github.com/postern-mail/postern/greylist"
)

const (
	minFilterKeys = 1 << 20
	bitsPerKey    = 16 // with 4 probes, 1 of 400 absent keys is read in vain
	filterProbes  = 4
)

// hashOf is stable, as it stands in the file, and cannot be steered by those
// who choose senders.
func hashOf(id greylist.ID) int64 {
	sum := sha256.Sum256([]byte(id))
	return int64(binary.LittleEndian.Uint64(sum[:]))
}

// filter is a Bloom filter: it knows for certain what the file does not hold,
// of what is not in memory.
type filter struct {
	words []atomic.Uint64 // a power of two
	room  int64           // keys that it is made for
	added atomic.Int64    // keys that it did not seem to have already
}

func newFilter(keys int64) *filter {
	room := max(2*keys, minFilterKeys)
	words := 1 << bits.Len64(uint64(room*bitsPerKey/64-1))
	return &filter{words: make([]atomic.Uint64, words), room: room}
}

func (f *filter) add(hash int64) {
	isNew := false
	for i := range filterProbes {
		word, bit := f.place(hash, i)
		if f.words[word].Load()&bit == 0 {
			f.words[word].Or(bit)
			isNew = true
		}
	}
	if isNew {
		f.added.Add(1)
	}
}

func (f *filter) has(hash int64) bool {
	for i := range filterProbes {
		word, bit := f.place(hash, i)
		if f.words[word].Load()&bit == 0 {
			return false
		}
	}
	return true
}

// place takes the probes from two halves of the hash, as Kirsch and
// Mitzenmacher showed to be enough.
func (f *filter) place(hash int64, probe int) (word int, bit uint64) {
	h := uint64(hash)
	n := h + uint64(probe)*(h>>32|h<<32|1)
	n *= 0x9e3779b97f4a7c15
	return int(n>>6) & (len(f.words) - 1), 1 << (n >> 58)
}

// crowded tells that too many keys have been added to be of use.
func (f *filter) crowded() bool { return f.added.Load() > f.room }

// filters is the filter in use and the one that is being built, if any.
type filters struct{ current, building atomic.Pointer[filter] }

func (f *filters) mayHave(id greylist.ID) bool {
	current := f.current.Load()
	return current.added.Load() > 0 && current.has(hashOf(id))
}

// add must be called before memory drops a key. It looks at the one being built first: should it be put to use in between,
// current is that one.
func (f *filters) add(hash int64) {
	if building := f.building.Load(); building != nil {
		building.add(hash)
	}
	f.current.Load().add(hash)
}
