// Package memstore keeps a greylist in memory: alone, forgotten with the
// process, or as the authority in front of a slower backing that it reads on a
// miss and that takes what changed from time to time.
//
// Invariants:
//
//   - Entries are bounded in number. Room is made by dropping an entry of the
//     same shard that needs no writing, a waiting one before one that passed;
//     when there is none, the store says greylist.ErrFull.
//   - The shards that a key touches are locked together, in their order, and
//     the backing is never asked meanwhile.
//   - An entry that has changed since it was last written stays in memory.
package memstore

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/postern-mail/postern/greylist"
)

const (
	// DefaultMaxEntries bounds a store that is not told otherwise: about
	// 250 MB when full.
	DefaultMaxEntries = 1 << 20

	shards = 256
	// minPerShard is room enough for the four entries of one sighting, and more.
	minPerShard = 16
	// maxFloodNetworks bounds the networks of a shard whose new triplets are
	// counted. Beyond it an older count gives way.
	maxFloodNetworks = 1 << 10
	// evictionLooks is how many entries are looked at for the one to drop.
	evictionLooks = 8
)

// Row is an entry as a backing knows it.
type Row struct {
	greylist.Entry
	RowID   int64 // the backing's own name for it, 0 when it has none yet
	Deleted bool
}

// Backing is what stands behind the memory.
type Backing interface {
	// Has tells whether an entry may exist; false is certain.
	Has(id greylist.ID) bool
	// Load reads one entry; ok is false when there is none.
	Load(ctx context.Context, id greylist.ID) (row Row, ok bool, err error)
	// Added hears of every new entry, under a lock of the store.
	Added(id greylist.ID)
}

// Options describe a store.
type Options struct {
	MaxEntries int     // 0: DefaultMaxEntries
	Backing    Backing // nil: none
}

// Store implements greylist.Store and greylist.Browser.
type Store struct {
	seed    maphash.Seed
	backing Backing
	perMap  int
	shards  [shards]shard
}

type shard struct {
	mu      sync.Mutex
	entries map[greylist.ID]*entry
	dirty   []*entry // changed since the last Flush, each once
	flood   map[string]window
	evicted uint64 // counts what was dropped: a miss read meanwhile may be stale
}

type entry struct {
	Row
	dirty   bool
	version uint32 // counts changes, so that Flush knows what it wrote
}

// window counts the new triplets of a network.
type window struct {
	start greylist.Stamp
	count int
}

// New makes an empty store.
func New(o Options) *Store {
	if o.MaxEntries == 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	s := &Store{seed: maphash.MakeSeed(), backing: o.Backing, perMap: max(o.MaxEntries/shards, minPerShard)}
	for i := range s.shards {
		s.shards[i].entries = make(map[greylist.ID]*entry)
		s.shards[i].flood = make(map[string]window)
	}
	return s
}

func (s *Store) shardOf(id greylist.ID) int {
	return int(maphash.String(s.seed, string(id)) % shards)
}

// slots are the places that a sighting touches, in this order.
const (
	byDomain = iota
	byNetwork
	domainClient
	networkClient
	slots
)

type ids [slots]greylist.ID

func idsOf(k greylist.Key) ids {
	return ids{k.ByDomain(), k.ByNetwork(), k.DomainClient(), k.NetworkClient()}
}

// hold is the set of locked shards of one operation.
type hold struct {
	store *Store
	at    [slots]int // shard of each ID, -1 for none
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
		h.at[i] = s.shardOf(id)
		h.insert(h.at[i])
	}
	return h
}

// insert keeps the shards sorted and each once.
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

// maxLoads bounds the rounds of reading what is missing. Each round but the
// first means that another request has changed the same shard meanwhile.
const maxLoads = 16

// with runs f under the locks of all, with what is stored in memory.
func (s *Store) with(ctx context.Context, all ids, f func(h *hold) error) error {
	h := s.holdOf(all)
	h.lock()
	defer h.unlock()
	for range maxLoads {
		missing, seen := s.missing(&h, all)
		if missing == "" {
			return f(&h)
		}
		h.unlock()
		row, ok, err := s.backing.Load(ctx, missing)
		h.lock()
		if err != nil {
			return fmt.Errorf("read the greylist: %w", err)
		}
		if err := s.loaded(missing, row, ok, seen); err != nil {
			return err
		}
	}
	return errBusy
}

var errBusy = errors.New("greylist store: entries come and go too fast")

// missing gives an ID that only the backing may know.
func (s *Store) missing(h *hold, all ids) (greylist.ID, uint64) {
	if s.backing == nil {
		return "", 0
	}
	for i, id := range all {
		if id == "" {
			continue
		}
		sh := &s.shards[h.at[i]]
		if _, ok := sh.entries[id]; !ok && s.backing.Has(id) {
			return id, sh.evicted
		}
	}
	return "", 0
}

// loaded puts what was read into memory, an absence as a deleted entry that
// needs no writing. What has changed since the reading began is left alone.
func (s *Store) loaded(id greylist.ID, row Row, ok bool, seen uint64) error {
	sh := &s.shards[s.shardOf(id)]
	if sh.entries[id] != nil || sh.evicted != seen {
		return nil
	}
	if !ok {
		row = Row{Entry: greylist.Entry{ID: id}, Deleted: true}
	}
	if err := s.makeRoom(sh); err != nil {
		return err
	}
	sh.entries[id] = &entry{Row: row}
	return nil
}

// makeRoom drops an entry if the shard is full.
func (s *Store) makeRoom(sh *shard) error {
	if len(sh.entries) < s.perMap {
		return nil
	}
	var victim *entry
	looked := 0
	for _, e := range sh.entries { // the order of a map is random enough
		if e.dirty && s.backing != nil {
			continue
		}
		if victim == nil || victim.worth() > e.worth() {
			victim = e
		}
		if looked++; looked == evictionLooks {
			break
		}
	}
	if victim == nil {
		return greylist.ErrFull
	}
	delete(sh.entries, victim.ID)
	sh.evicted++
	return nil
}

// worth orders entries by how much their loss would hurt.
func (e *entry) worth() int64 {
	switch {
	case e.Deleted:
		return 0
	case e.Client.Manual:
		return 1<<62 + 1
	case e.ID.IsClient() || e.Triplet.Passed != 0:
		return 1<<61 + int64(max(e.Triplet.Last, e.Client.Last))
	}
	return int64(e.Triplet.First)
}

// peek gives a copy of the entry in a slot, zero if there is none.
func (h *hold) peek(all *ids, slot int) greylist.Entry {
	if h.at[slot] < 0 {
		return greylist.Entry{}
	}
	if e := h.store.shards[h.at[slot]].entries[all[slot]]; e != nil && !e.Deleted {
		return e.Entry
	}
	return greylist.Entry{}
}

func (h *hold) record(all *ids) greylist.Record {
	return greylist.Record{
		ByDomain:      h.peek(all, byDomain).Triplet,
		ByNetwork:     h.peek(all, byNetwork).Triplet,
		DomainClient:  h.peek(all, domainClient).Client,
		NetworkClient: h.peek(all, networkClient).Client,
	}
}

// Seen implements greylist.Store.
func (s *Store) Seen(ctx context.Context, key greylist.Key, now time.Time, limits greylist.Limits) (greylist.Record, error) {
	all := idsOf(key)
	var r greylist.Record
	err := s.with(ctx, all, func(h *hold) error {
		r = h.record(&all)
		at := greylist.At(now)
		flood := &s.shards[h.at[networkClient]]
		change := r.Advance(at, flood.recent(key.Network, at), limits)
		r.Refused = change.Refused
		if err := h.apply(&all, change, at); err != nil {
			return err
		}
		if change.IsNew {
			flood.count(key.Network, at)
		}
		return nil
	})
	return r, err
}

func (h *hold) apply(all *ids, c greylist.Change, now greylist.Stamp) error {
	triplet := func(e *greylist.Entry) { e.Triplet = c.Triplet }
	touch := func(e *greylist.Entry) { e.Client = e.Client.Touched(now) }
	for slot, change := range [slots]func(*greylist.Entry){
		byDomain:      onlyIf(c.WriteTriplet, triplet),
		byNetwork:     onlyIf(c.WriteTriplet, triplet),
		domainClient:  onlyIf(c.TouchDomain, touch),
		networkClient: onlyIf(c.TouchNetwork, touch),
	} {
		if change == nil || h.at[slot] < 0 {
			continue
		}
		if err := h.store.change(h.at[slot], all[slot], change); err != nil {
			return err
		}
	}
	return nil
}

func onlyIf(b bool, f func(*greylist.Entry)) func(*greylist.Entry) {
	if !b {
		return nil
	}
	return f
}

// change edits an entry, which it makes when there is none, and marks it for
// writing.
func (s *Store) change(shard int, id greylist.ID, edit func(*greylist.Entry)) error {
	sh := &s.shards[shard]
	e := sh.entries[id]
	if e == nil {
		if err := s.makeRoom(sh); err != nil {
			return err
		}
		e = &entry{Row: Row{Entry: greylist.Entry{ID: id}}}
		sh.entries[id] = e
		if s.backing != nil {
			s.backing.Added(id)
		}
	} else if e.Deleted {
		e.Deleted, e.Entry = false, greylist.Entry{ID: id}
		if s.backing != nil {
			s.backing.Added(id)
		}
	}
	edit(&e.Entry)
	s.mark(sh, e)
	return nil
}

func (s *Store) mark(sh *shard, e *entry) {
	e.version++
	if s.backing != nil && !e.dirty {
		e.dirty = true
		sh.dirty = append(sh.dirty, e)
	}
}

func (sh *shard) recent(network string, now greylist.Stamp) int {
	if w := sh.flood[network]; w.runs(now) {
		return w.count
	}
	return 0
}

func (w window) runs(now greylist.Stamp) bool {
	age := now.Sub(w.start)
	return age >= 0 && age < greylist.FloodWindow
}

func (sh *shard) count(network string, now greylist.Stamp) {
	w := sh.flood[network]
	if !w.runs(now) {
		w = window{start: now}
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
		next, ok := h.peek(&all, networkClient).Client.Credited(greylist.At(now))
		if !ok {
			return nil
		}
		return s.change(h.at[networkClient], all[networkClient], func(e *greylist.Entry) { e.Client = next })
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
