package memstore

import "github.com/postern-mail/postern/greylist"

// table finds entries by their ID. Entries have no pointers, so the garbage
// collector does not visit them. In a map of strings it would visit each one.
type table struct {
	heads []int32 // the first slot of each chain, 1 more than its index; 0 for none
	slots []entry
	free  int32 // chain of free slots, likewise
	live  int
	text  []byte // the IDs
	waste int    // octets of text that are not used any more
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
	// minChains is the size of a new table.
	minChains = 16
	// minWaste is the waste below which compacting is not considered.
	minWaste = 4096
)

// find returns the slot of an ID, or -1.
func (t *table) find(hash uint64, id greylist.ID) int {
	if len(t.heads) == 0 {
		return -1
	}
	for i := *t.head(hash); i != 0; i = t.slots[i-1].next {
		if e := &t.slots[i-1]; e.hash == hash && string(t.name(e)) == string(id) {
			return int(i) - 1
		}
	}
	return -1
}

func (t *table) head(hash uint64) *int32 { return &t.heads[hash&uint64(len(t.heads)-1)] }

// name returns the text of the ID, valid until the table changes.
func (t *table) name(e *entry) []byte { return t.text[e.text : e.text+e.size] }

// id returns a copy of the ID in a slot.
func (t *table) id(slot int) greylist.ID { return greylist.ID(t.name(&t.slots[slot])) }

// entry returns the entry in a slot.
func (t *table) entry(slot int) greylist.Entry {
	s := t.slots[slot].state()
	return greylist.Entry{ID: t.id(slot), Triplet: s.triplet, Client: s.client}
}

// row returns the entry in a slot as a row of the backing.
func (t *table) row(slot int) Row {
	return Row{Entry: t.entry(slot), RowID: t.slots[slot].rowID, Deleted: t.slots[slot].is(deleted)}
}

// add adds an entry for an ID that is not in the table.
func (t *table) add(hash uint64, id greylist.ID) int {
	if t.live >= len(t.heads) {
		t.rehash(max(2*len(t.heads), minChains))
	}
	slot := int(t.free) - 1
	if slot >= 0 {
		t.free = t.slots[slot].next
	} else {
		slot = len(t.slots)
		t.slots = append(t.slots, entry{})
	}
	head := t.head(hash)
	e := &t.slots[slot]
	*e = entry{hash: hash, next: *head, text: uint32(len(t.text)), size: uint32(len(id)), flags: used}
	e.set(isClient, id.IsClient())
	t.text = append(t.text, id...)
	*head = int32(slot) + 1
	t.live++
	return slot
}

// rehash rebuilds the chains.
func (t *table) rehash(chains int) {
	t.heads = make([]int32, chains)
	for i := range t.slots {
		if e := &t.slots[i]; e.is(used) {
			head := t.head(e.hash)
			e.next, *head = *head, int32(i)+1
		}
	}
}

// remove frees a slot.
func (t *table) remove(slot int) {
	e := &t.slots[slot]
	at := t.head(e.hash)
	for *at != int32(slot)+1 {
		at = &t.slots[*at-1].next
	}
	*at = e.next
	t.waste += int(e.size)
	*e = entry{next: t.free}
	t.free = int32(slot) + 1
	t.live--
	if t.waste > minWaste && t.waste > len(t.text)/2 {
		t.compact()
	}
}

// compact removes the text that is not used any more.
func (t *table) compact() {
	text := make([]byte, 0, len(t.text)-t.waste)
	for i := range t.slots {
		if e := &t.slots[i]; e.is(used) {
			name := t.name(e)
			e.text = uint32(len(text))
			text = append(text, name...)
		}
	}
	t.text, t.waste = text, 0
}

// all calls f for every slot in use. f may remove it.
func (t *table) all(f func(slot int)) {
	for i := range t.slots {
		if t.slots[i].is(used) {
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
