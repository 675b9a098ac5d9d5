package memstore

import "github.com/postern-mail/postern/greylist"

// table finds entries by their ID. Entries have no pointers, so the garbage
// collector does not visit them. In a map of strings it would visit each one.
//
// Slots and texts are in blocks, so that a table grows without being copied.
type table struct {
	heads  []int32 // the first slot of each chain, 1 more than its index; 0 for none
	blocks [][]entry
	made   int   // slots, used or free
	free   int32 // chain of free slots, 1 more than its index
	live   int
	text   text
}

// entry is one slot.
type entry struct {
	hash    uint64
	rowID   int64
	triplet greylist.Triplet // for a client: Last is its Last, First is its Passes
	next    int32            // slot in the same chain, 1 more than its index; 0 for none
	text    uint32           // where the ID begins
	size    uint32           // of the ID
	version uint16           // counts changes, so that Written knows what was written
	flags   flags
}

type flags uint8

const (
	used     flags = 1 << iota
	dirty          // waits to be written
	behind         // the backing has an older Last, and need not be written at once, see Review
	deleted        // is not in the backing, or must be removed there
	isClient       // ID.IsClient
	manual         // Client.Manual
)

func (e *entry) is(f flags) bool { return e.flags&f != 0 }

func (e *entry) set(f flags, on bool) {
	if on {
		e.flags |= f
	} else {
		e.flags &^= f
	}
}

func (e *entry) client() greylist.Client {
	return greylist.Client{Passes: int(e.triplet.First), Last: e.triplet.Last, Manual: e.is(manual)}
}

// state returns the state of the entry, without its ID.
func (e *entry) state() state {
	if e.is(isClient) {
		return state{client: e.client()}
	}
	return state{triplet: e.triplet}
}

// setState stores the triplet or the client of a state, by the kind of the entry.
func (e *entry) setState(s state) {
	if !e.is(isClient) {
		e.triplet = s.triplet
		return
	}
	e.triplet = greylist.Triplet{First: greylist.Stamp(min(s.client.Passes, greylist.MaxPasses)), Last: s.client.Last}
	e.set(manual, s.client.Manual)
}

// state is an entry's triplet, or its client.
type state struct {
	triplet greylist.Triplet
	client  greylist.Client
}

// worth returns how much the loss of an entry would cost, to compare entries.
func (e *entry) worth() int64 {
	switch {
	case e.is(deleted):
		return 0
	case e.is(manual):
		return 1<<62 + 1
	case e.is(isClient) || e.triplet.Passed != 0:
		return 1<<61 + int64(e.triplet.Last)
	}
	return int64(e.triplet.First)
}

const (
	// headSize is the memory for the head of a chain, on average.
	headSize = 6
	// minChains is the size of a new table.
	minChains = 16
	// blockBits is the binary logarithm of the entries in a block.
	blockBits  = 8
	blockSlots = 1 << blockBits
)

// slot returns the entry in a slot.
func (t *table) slot(i int) *entry { return &t.blocks[i>>blockBits][i&(blockSlots-1)] }

// find returns the slot of an ID, or -1.
func (t *table) find(hash uint64, id greylist.ID) int {
	if len(t.heads) == 0 {
		return -1
	}
	for i := *t.head(hash); i != 0; i = t.slot(int(i) - 1).next {
		if e := t.slot(int(i) - 1); e.hash == hash && string(t.name(e)) == string(id) {
			return int(i) - 1
		}
	}
	return -1
}

// warm reads for some hashes what find reads first, so that the processor waits for memory
// once for many of them. The result is of no use, but the compiler must not leave it out.
func (t *table) warm(hashes []uint64, which []int32) (sum int32) {
	if len(t.heads) == 0 {
		return 0
	}
	for _, i := range which {
		if first := *t.head(hashes[i]); first != 0 {
			sum += t.slot(int(first) - 1).next
		}
	}
	return sum
}

func (t *table) head(hash uint64) *int32 { return &t.heads[hash&uint64(len(t.heads)-1)] }

// name returns the text of the ID, valid until the table changes.
func (t *table) name(e *entry) []byte { return t.text.at(e.text, e.size) }

// id returns a copy of the ID in a slot.
func (t *table) id(slot int) greylist.ID { return greylist.ID(t.name(t.slot(slot))) }

// entry returns the entry in a slot.
func (t *table) entry(slot int) greylist.Entry {
	s := t.slot(slot).state()
	return greylist.Entry{ID: t.id(slot), Triplet: s.triplet, Client: s.client}
}

// row returns the entry in a slot as a row of the backing.
func (t *table) row(slot int) Row {
	e := t.slot(slot)
	return Row{Entry: t.entry(slot), RowID: e.rowID, Deleted: e.is(deleted)}
}

// add adds an entry for an ID that is not in the table.
func (t *table) add(hash uint64, id greylist.ID) int {
	if t.live >= len(t.heads) {
		t.rehash(max(2*len(t.heads), minChains))
	}
	slot := t.vacant()
	head := t.head(hash)
	e := t.slot(slot)
	*e = entry{hash: hash, next: *head, text: t.text.add(id), size: uint32(len(id)), flags: used}
	e.set(isClient, id.IsClient())
	*head = int32(slot) + 1
	t.live++
	return slot
}

// vacant returns a slot that is not used.
func (t *table) vacant() int {
	if slot := int(t.free) - 1; slot >= 0 {
		t.free = t.slot(slot).next
		return slot
	}
	if t.made == len(t.blocks)<<blockBits {
		t.blocks = append(t.blocks, nil)
	}
	last := &t.blocks[len(t.blocks)-1]
	if *last == nil && len(t.blocks) > 1 {
		*last = make([]entry, 0, blockSlots)
	}
	*last = append(*last, entry{})
	t.made++
	return t.made - 1
}

// rehash rebuilds the chains.
func (t *table) rehash(chains int) {
	t.heads = make([]int32, chains)
	t.all(func(i int) {
		e := t.slot(i)
		head := t.head(e.hash)
		e.next, *head = *head, int32(i)+1
	})
}

// remove frees a slot.
func (t *table) remove(slot int) {
	e := t.slot(slot)
	at := t.head(e.hash)
	for *at != int32(slot)+1 {
		at = &t.slot(int(*at) - 1).next
	}
	*at = e.next
	t.text.remove(e.size)
	*e = entry{next: t.free}
	t.free = int32(slot) + 1
	t.live--
	if t.text.wasteful() {
		t.compact()
	}
}

// compact removes the texts that are not used any more.
func (t *table) compact() {
	var compact text
	t.all(func(slot int) {
		e := t.slot(slot)
		e.text = compact.add(greylist.ID(t.name(e)))
	})
	t.text = compact
}

// all calls f for every slot in use. f may remove it.
func (t *table) all(f func(slot int)) {
	for i := range t.made {
		if t.slot(i).is(used) {
			f(i)
		}
	}
}

func (e *entry) expired(now greylist.Stamp, l greylist.Limits) bool {
	if e.is(isClient) {
		return e.client().Expired(now, l)
	}
	return e.triplet.Expired(now, l)
}
