package memstore

// index finds things by their hash. It needs one access to memory for nearly all lookups,
// where Go's maps need several: limits are looked up with each mail, and are too many
// for the caches of the processor.
//
// It is a table of at least a third more entries than it has things, with linear probing:
// a thing is in the first free entry from its home on, and removing one closes the gap. So
// a lookup ends at a free entry. P is comparable without allocation: a slot or a pointer.
type index[P comparable] struct {
	entries []entry[P] // their number is a power of two
	len     int
}

// entry is free if its thing is the zero value.
type entry[P comparable] struct {
	hash  uint32
	thing P
}

const leastEntries = 64

func (x *index[P]) mask() uint32 { return uint32(len(x.entries) - 1) }

// find returns the thing with a hash for which is returns true, or the zero value.
func (x *index[P]) find(hash uint32, is func(P) bool) (thing P) {
	if x.len == 0 {
		return thing
	}
	var none P
	for i := hash & x.mask(); ; i = (i + 1) & x.mask() {
		e := &x.entries[i]
		if e.thing == none || e.hash == hash && is(e.thing) {
			return e.thing
		}
	}
}

// add adds a thing that the index does not have.
func (x *index[P]) add(hash uint32, thing P) {
	if x.len >= len(x.entries)/4*3 {
		x.grow()
	}
	x.len++
	x.put(entry[P]{hash, thing})
}

func (x *index[P]) grow() {
	old := x.entries
	x.entries = make([]entry[P], max(leastEntries, 2*len(old)))
	var none P
	for _, e := range old {
		if e.thing != none {
			x.put(e)
		}
	}
}

func (x *index[P]) put(e entry[P]) {
	var none P
	i := e.hash & x.mask()
	for x.entries[i].thing != none {
		i = (i + 1) & x.mask()
	}
	x.entries[i] = e
}

// remove removes a thing that the index has.
func (x *index[P]) remove(hash uint32, thing P) {
	x.len--
	var none entry[P]
	gap := hash & x.mask()
	for x.entries[gap].thing != thing {
		gap = (gap + 1) & x.mask()
	}
	for i := (gap + 1) & x.mask(); x.entries[i].thing != none.thing; i = (i + 1) & x.mask() {
		// The thing can be in the gap if its home is not between the gap and its place.
		if e := x.entries[i]; (i-e.hash)&x.mask() >= (i-gap)&x.mask() {
			x.entries[gap], gap = e, i
		}
	}
	x.entries[gap] = none
}
