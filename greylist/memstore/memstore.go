// Package memstore keeps a greylist in memory. Without a backing, its entries are
// lost when the process ends. With a slower backing, such as a file, memory is the
// authority: it reads an entry that it misses from the backing, and what changed is
// written to the backing from time to time.
//
// Invariants:
//
//   - The memory is bounded. When a shard is full, it drops an entry that
//     does not wait to be written, one that has not passed before one that has. If
//     there is none, the store returns greylist.ErrFull.
//   - The shards that a key touches are locked together, in their order. The
//     backing is never read while they are locked.
//   - An entry that has changed since it was last written stays in memory. If only the
//     time of its latest sighting has changed, it may be written much later, see Review.
//   - An entry that had expired is written to a new row, because a file is written faster
//     at its end. Of rows with the same ID the newest counts, and Review finds the others.
//   - For an entry that is only in the backing, memory keeps the number of its row.
//     So a new key causes no read, and the backing needs no index.
package memstore

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/postern-mail/postern/greylist"
)

const (
	// DefaultMemory is the default bound, in octets.
	DefaultMemory = 320 << 20

	shardBits = 8
	shards    = 1 << shardBits
	// minPerShard is room enough for the four entries of one sighting, and more.
	minPerShard = 16
	// maxFloodNetworks bounds the networks of a shard whose new triplets are
	// counted. Beyond it an older count is dropped.
	maxFloodNetworks = 1 << 10
	// entryText is how much text there is room for, for each entry. Fewer entries fit
	// when their IDs are longer on average.
	entryText = 80
	// minText is room enough for some long IDs.
	minText = 4 << 10
	// evictionLooks is how many entries are compared to choose the one to drop.
	evictionLooks = 8
)

// Row is an entry as a backing knows it.
type Row struct {
	greylist.Entry
	RowID   int64 // the number of the row in the backing; 0 when it has none yet
	Deleted bool
}

// Backing is a slower store from which memory reads what it misses.
type Backing interface {
	// Load reads the entry of one row; ok is false when there is none.
	Load(ctx context.Context, rowID int64) (row Row, ok bool, err error)
}

// Options describe a store.
type Options struct {
	Memory  int64   // octets for entries and their IDs; 0: DefaultMemory
	Backing Backing // nil: none
}

// Store implements greylist.Store and greylist.Browser.
type Store struct {
	seed    maphash.Seed
	backing Backing
	perMap  int // entries in a shard
	text    int // octets of their IDs
	lost    atomic.Uint64
	shards  [shards]shard
}

type shard struct {
	mu sync.Mutex
	table
	away    away
	dirty   []int32 // slots changed since the last Take, each once
	behind  int     // how many entries are behind
	flood   map[string]counter
	evicted uint64 // counts dropped entries: a row that was read meanwhile may be stale
}

// counter counts the new triplets of a greylist.Key's Window.
type counter struct {
	start greylist.Stamp
	count int
}

// New returns an empty store.
func New(o Options) *Store {
	if o.Memory == 0 {
		o.Memory = DefaultMemory
	}
	perEntry := int64(unsafe.Sizeof(entry{})) + headSize + entryText
	if o.Backing != nil {
		perEntry += awayPerEntry * awaySize
	}
	perMap := max(int(o.Memory/perEntry/shards), minPerShard)
	s := &Store{seed: maphash.MakeSeed(), backing: o.Backing, perMap: perMap, text: max(perMap*entryText, minText)}
	for i := range s.shards {
		s.shards[i].flood = make(map[string]counter)
		s.shards[i].away = away{most: awayPerEntry * s.perMap}
	}
	return s
}

// Forgotten returns how many entries of the backing were dropped from memory with the
// numbers of their rows, because there was no room for those. Their senders wait once
// more.
func (s *Store) Forgotten() uint64 { return s.lost.Load() }

func (s *Store) hash(id greylist.ID) uint64 { return maphash.String(s.seed, string(id)) }

// shardOf returns the shard of a hash. It uses the end of the hash that the shard's
// table does not use.
func shardOf(hash uint64) int { return int(hash >> (64 - shardBits)) }

// slots are the places that a sighting touches, in this order.
const (
	byDomain = iota
	byNetwork
	domainClient
	networkClient
	window // of new triplets, when it is not the network: locked, never stored
	slots
)

type ids [slots]greylist.ID

func idsOf(k greylist.Key) ids {
	all := ids{byDomain: k.ByDomain(), byNetwork: k.ByNetwork(), domainClient: k.DomainClient(), networkClient: k.NetworkClient()}
	if k.Domain != "" {
		all[window] = greylist.ID(k.Window())
	}
	return all
}

// hold is the set of locked shards of one operation.
type hold struct {
	store *Store
	at    [slots]int // shard of each ID, -1 for none
	hash  [slots]uint64
	order [slots]int
	n     int
}

func (s *Store) holdOf(all ids) hold {
	h := hold{store: s}
	for i, id := range all {
		h.at[i] = -1
		if id == "" {
			continue
		}
		h.hash[i] = s.hash(id)
		h.at[i] = shardOf(h.hash[i])
		h.insert(h.at[i])
	}
	return h
}

// insert adds a shard, and keeps the shards sorted and without duplicates.
func (h *hold) insert(shard int) {
	i := 0
	for i < h.n && h.order[i] < shard {
		i++
	}
	if i < h.n && h.order[i] == shard {
		return
	}
	copy(h.order[i+1:h.n+1], h.order[i:h.n])
	h.order[i] = shard
	h.n++
}

func (h *hold) lock() {
	for _, i := range h.order[:h.n] {
		h.store.shards[i].mu.Lock()
	}
}

func (h *hold) unlock() {
	for _, i := range h.order[:h.n] {
		h.store.shards[i].mu.Unlock()
	}
}

// maxLoads bounds how often missing entries are read again. Another round is needed
// only when another request has changed the same shard meanwhile.
const maxLoads = 16

// with loads what is missing into memory, and runs f with all its shards locked.
func (s *Store) with(ctx context.Context, all ids, f func(h *hold) error) error {
	h := s.holdOf(all)
	h.lock()
	defer h.unlock()
	for range maxLoads {
		slot := s.missing(&h, &all)
		if slot < 0 {
			return f(&h)
		}
		sh := &s.shards[h.at[slot]]
		rowID, seen := sh.away.row(h.hash[slot]), sh.evicted
		h.unlock()
		row, ok, err := s.backing.Load(ctx, rowID)
		h.lock()
		if err != nil {
			return fmt.Errorf("read the greylist: %w", err)
		}
		if sh.away.row(h.hash[slot]) != rowID || sh.evicted != seen {
			continue // it has been read, and perhaps changed, meanwhile
		}
		if err := s.loaded(h.hash[slot], all[slot], row, ok); err != nil {
			return err
		}
	}
	return errBusy
}

var errBusy = errors.New("greylist store: entries come and go too fast")

// missing returns a slot whose ID is only in the backing, or -1.
func (s *Store) missing(h *hold, all *ids) int {
	for i, id := range all {
		if id == "" {
			continue
		}
		sh := &s.shards[h.at[i]]
		if sh.away.row(h.hash[i]) != 0 && sh.find(h.hash[i], id) < 0 {
			return i
		}
	}
	return -1
}

// loaded puts a row that was read into memory. A row that is gone, or that belongs to
// another ID with the same hash, is not looked up again.
func (s *Store) loaded(hash uint64, id greylist.ID, row Row, ok bool) error {
	sh := &s.shards[shardOf(hash)]
	if !ok || row.ID != id {
		sh.away.remove(hash)
		return nil
	}
	if err := s.makeRoom(sh); err != nil {
		return err
	}
	sh.away.remove(hash)
	sh.put(hash, row)
	return nil
}

// put adds an entry for a row that is not in memory.
func (sh *shard) put(hash uint64, row Row) {
	e := sh.slot(sh.add(hash, row.ID))
	e.rowID = row.RowID
	e.setState(state{row.Triplet, row.Client})
}

// Fill adds rows of the backing, before the store is used or after Rewrite. While there
// is room an entry is kept in memory, merged with what memory knows about the ID. Of
// rows with the same ID the first counts. The rows of a shard are added together,
// because the processor's cache holds one shard, but not all.
func (s *Store) Fill(rows []Row) {
	hashes := make([]uint64, len(rows))
	var ends [shards + 1]int32 // of the rows of each shard in order; first, how many there are
	for i := range rows {
		hashes[i] = s.hash(rows[i].ID)
		ends[shardOf(hashes[i])+1]++
	}
	for i := range shards {
		ends[i+1] += ends[i]
	}
	order := make([]int32, len(rows))
	for i, hash := range hashes {
		end := &ends[shardOf(hash)]
		order[*end] = int32(i)
		*end++
	}
	first := int32(0)
	for i, end := range ends[:shards] {
		s.fillShard(&s.shards[i], rows, hashes, order[first:end])
		first = end
	}
}

// fillShard adds the rows with the given indices, which belong to the shard.
func (s *Store) fillShard(sh *shard, rows []Row, hashes []uint64, which []int32) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	runtime.KeepAlive(sh.warm(hashes, which))
	for _, i := range which {
		hash, row := hashes[i], &rows[i]
		switch slot := sh.find(hash, row.ID); {
		case slot >= 0:
			sh.learn(slot, *row)
		case sh.away.row(hash) != 0:
		case s.isFull(sh):
			s.fillFull(sh, hash, row)
		default:
			sh.put(hash, *row)
		}
	}
}

// fillFull adds a row to a shard that has no room for another entry. When the number of
// the row has none either, a row that is worth more takes the place of an entry: otherwise
// the oldest rows would be forgotten, and with them what was allowed by hand.
func (s *Store) fillFull(sh *shard, hash uint64, row *Row) {
	if sh.away.add(hash, row.RowID) {
		return
	}
	s.lost.Add(1) // the row, or the entry
	var e entry
	e.set(isClient, row.ID.IsClient())
	e.setState(state{row.Triplet, row.Client})
	victim := sh.leastWorth()
	if victim < 0 || sh.slot(victim).rowID == 0 || sh.slot(victim).worth() >= e.worth() {
		return
	}
	sh.remove(victim)
	sh.evicted++
	if !s.isFull(sh) { // its ID may be longer than that of the victim
		sh.put(hash, *row)
	}
}

// Adopt adds an entry that the backing does not have under this ID, while memory has
// room.
func (s *Store) Adopt(e greylist.Entry) {
	hash := s.hash(e.ID)
	sh := &s.shards[shardOf(hash)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	slot := sh.find(hash, e.ID)
	switch {
	case slot >= 0:
		known := sh.entry(slot).Merge(e)
		sh.slot(slot).setState(state{known.Triplet, known.Client})
	case sh.away.row(hash) != 0:
		return
	case s.isFull(sh):
		s.lost.Add(1)
		return
	default:
		sh.put(hash, Row{Entry: e})
		slot = sh.find(hash, e.ID)
	}
	s.mark(sh, slot)
}

// learn merges a row with what is known about its ID, unless the ID already has a
// row. What the backing did not have before is then written to it.
func (sh *shard) learn(slot int, row Row) {
	e := sh.slot(slot)
	if e.rowID != 0 {
		return
	}
	e.rowID = row.RowID
	if !e.is(deleted) {
		both := sh.entry(slot).Merge(row.Entry)
		e.setState(state{both.Triplet, both.Client})
	}
}

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

// peek returns what is known about the ID in a slot; ok is false for nothing.
func (h *hold) peek(all *ids, slot int) (known state, ok bool) {
	if h.at[slot] < 0 {
		return state{}, false
	}
	sh := &h.store.shards[h.at[slot]]
	i := sh.find(h.hash[slot], all[slot])
	if i < 0 || sh.slot(i).is(deleted) {
		return state{}, false
	}
	return sh.slot(i).state(), true
}

func (h *hold) triplet(all *ids, slot int) greylist.Triplet {
	known, _ := h.peek(all, slot)
	return known.triplet
}

func (h *hold) client(all *ids, slot int) greylist.Client {
	known, _ := h.peek(all, slot)
	return known.client
}

func (h *hold) record(all *ids) greylist.Record {
	return greylist.Record{
		ByDomain:      h.triplet(all, byDomain),
		ByNetwork:     h.triplet(all, byNetwork),
		DomainClient:  h.client(all, domainClient),
		NetworkClient: h.client(all, networkClient),
	}
}

// Seen implements greylist.Store.
func (s *Store) Seen(ctx context.Context, key greylist.Key, now time.Time, limits greylist.Limits) (greylist.Record, error) {
	all := idsOf(key)
	var r greylist.Record
	err := s.with(ctx, all, func(h *hold) error {
		r = h.record(&all)
		at := greylist.At(now)
		flood, source := &s.shards[h.at[networkClient]], key.Window()
		if key.Domain != "" {
			flood = &s.shards[h.at[window]]
		}
		change := r.Advance(key, at, flood.recent(source, at), limits)
		if r.Refused = change.Refused; r.Refused == greylist.NetworkFlooded {
			r.FloodEnds = flood.flood[source].ends()
		}
		if err := h.apply(&all, change, at, limits); err != nil {
			return err
		}
		if change.IsNew && limits.NetworkCap > 0 {
			flood.count(source, at)
		}
		return nil
	})
	return r, err
}

func (h *hold) apply(all *ids, c greylist.Change, now greylist.Stamp, l greylist.Limits) error {
	for slot, changes := range [slots]bool{
		byDomain:      c.WriteTriplet,
		byNetwork:     c.WriteTriplet,
		domainClient:  c.TouchDomain,
		networkClient: c.TouchNetwork,
	} {
		if !changes || h.at[slot] < 0 {
			continue
		}
		next := state{triplet: c.Triplet}
		if slot == domainClient || slot == networkClient {
			next = state{client: h.client(all, slot).Touched(now)}
		}
		if h.renewal(all, slot, next, l) {
			continue
		}
		if c.IsNew {
			h.newRow(all, slot)
		}
		if err := h.change(all, slot, next); err != nil {
			return err
		}
	}
	return nil
}

// change sets the state of an entry and marks the entry for writing. It adds the
// entry if there is none.
func (h *hold) change(all *ids, slot int, next state) error {
	sh := &h.store.shards[h.at[slot]]
	i := sh.find(h.hash[slot], all[slot])
	if i < 0 {
		if err := h.store.makeRoom(sh); err != nil {
			return err
		}
		i = sh.add(h.hash[slot], all[slot])
		// The room for another entry of this operation may have been its own.
		sh.slot(i).rowID = sh.away.row(h.hash[slot])
		sh.away.remove(h.hash[slot])
	}
	e := sh.slot(i)
	e.set(deleted, false)
	e.setState(next)
	h.store.mark(sh, i)
	return nil
}

func (s *Store) mark(sh *shard, slot int) {
	e := sh.slot(slot)
	e.version++
	sh.setBehind(e, false)
	if s.backing != nil && !e.is(dirty) {
		e.set(dirty, true)
		sh.dirty = append(sh.dirty, int32(slot))
	}
}

func (sh *shard) recent(network string, now greylist.Stamp) int {
	if w := sh.flood[network]; w.runs(now) {
		return w.count
	}
	return 0
}

// ends returns when the window ends.
func (w counter) ends() greylist.Stamp {
	return w.start + greylist.Stamp(greylist.FloodWindow.Milliseconds())
}

func (w counter) runs(now greylist.Stamp) bool {
	age := now.Sub(w.start)
	return age >= 0 && age < greylist.FloodWindow
}

func (sh *shard) count(network string, now greylist.Stamp) {
	w := sh.flood[network]
	if !w.runs(now) {
		w = counter{start: now}
	}
	w.count++
	if _, ok := sh.flood[network]; !ok && len(sh.flood) >= maxFloodNetworks {
		for other := range sh.flood {
			delete(sh.flood, other)
			break
		}
	}
	sh.flood[network] = w
}

// Credit implements greylist.Store.
func (s *Store) Credit(ctx context.Context, client string, now time.Time) error {
	all := ids{networkClient: greylist.ID(client)}
	return s.with(ctx, all, func(h *hold) error {
		next, ok := h.client(&all, networkClient).Credited(greylist.At(now))
		if !ok {
			return nil
		}
		return h.change(&all, networkClient, state{client: next})
	})
}

// Peek implements greylist.Store.
func (s *Store) Peek(ctx context.Context, key greylist.Key) (greylist.Record, error) {
	all := idsOf(key)
	var r greylist.Record
	err := s.with(ctx, all, func(h *hold) error {
		r = h.record(&all)
		return nil
	})
	return r, err
}
