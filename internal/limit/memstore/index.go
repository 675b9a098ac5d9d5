package memstore

// index finds the slots of things by their hash. It needs one access to memory for nearly
// all lookups, where Go's maps need several: the things are looked up with each mail, and
// are too many for the caches of the processor.
//
// It is a table of at least a third more entries than it has things, with linear probing:
// a thing is in the first free entry from its home on, and removing one closes the gap. So
// a lookup ends at a free entry.
type index struct {
	entries []entry // their number is a power of two
	len     int
}

// entry is free if its thing is 0.
type entry struct {
	hash  uint32
	thing slot
}

const leastEntries = 64

func (x *index) mask() uint32 { return uint32(len(x.entries) - 1) }

// find returns the thing with a hash for which is returns true, or 0.
func (x *index) find(hash uint32, is func(slot) bool) slot {
	if x.len == 0 {
		return 0
	}
	for i := hash & x.mask(); ; i = (i + 1) & x.mask() {
		e := &x.entries[i]
		if e.thing == 0 || e.hash == hash && is(e.thing) {
			return e.thing
		}
	}
}

// add adds a thing that the index does not have.
func (x *index) add(hash uint32, thing slot) {
	if x.len >= len(x.entries)/4*3 {
		x.grow()
	}
	x.len++
	x.put(entry{hash, thing})
}

func (x *index) grow() {
	old := x.entries
	x.entries = make([]entry, max(leastEntries, 2*len(old)))
	for _, e := range old {
		if e.thing != 0 {
			x.put(e)
		}
	}
}

func (x *index) put(e entry) {
	i := e.hash & x.mask()
	for x.entries[i].thing != 0 {
		i = (i + 1) & x.mask()
	}
	x.entries[i] = e
}

// place returns where a thing is that the index has.
func (x *index) place(hash uint32, thing slot) uint32 {
	i := hash & x.mask()
	for x.entries[i].thing != thing {
		i = (i + 1) & x.mask()
	}
	return i
}

// replace puts another thing with the same hash in the place of one that the index has.
func (x *index) replace(hash uint32, thing, by slot) {
	x.entries[x.place(hash, thing)].thing = by
}

// remove removes a thing that the index has.
func (x *index) remove(hash uint32, thing slot) {
	x.len--
	gap := x.place(hash, thing)
	for i := (gap + 1) & x.mask(); x.entries[i].thing != 0; i = (i + 1) & x.mask() {
		// The thing can be in the gap if its home is not between the gap and its place.
		if e := x.entries[i]; (i-e.hash)&x.mask() >= (i-gap)&x.mask() {
			x.entries[gap], gap = e, i
		}
	}
	x.entries[gap] = entry{}
}
