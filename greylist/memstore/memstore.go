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
	"hash/maphash"
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
	// entryText is how much text there is room for, for each entry. Fewer entries fit
	// when their IDs are longer on average.
	entryText = 80
	// minText is room enough for some long IDs.
	minText = 4 << 10
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

// Seen implements greylist.Store.
func (s *Store) Seen(ctx context.Context, key greylist.Key, now time.Time, limits greylist.Limits) (greylist.Record, error) {
	all := idsOf(key)
	var r greylist.Record
	err := s.with(ctx, all, func(h *hold) error {
		r = h.record()
		at := greylist.At(now)
		flood, source := &s.shards[h.at[networkClient]], key.Window()
		if key.Domain != "" {
			flood = &s.shards[h.at[window]]
		}
		change := r.Advance(key, at, flood.recent(source, at), limits)
		if r.Refused = change.Refused; r.Refused == greylist.NetworkFlooded {
			r.FloodEnds = flood.flood[source].ends()
		}
		if err := h.apply(change, at, limits); err != nil {
			return err
		}
		if change.IsNew && limits.NetworkCap > 0 {
			flood.count(source, at)
		}
		return nil
	})
	return r, err
}

// apply stores what a sighting changes.
func (h *hold) apply(c greylist.Change, now greylist.Stamp, l greylist.Limits) error {
	for role, changes := range [roles]bool{
		byDomain:      c.WriteTriplet,
		byNetwork:     c.WriteTriplet,
		domainClient:  c.TouchDomain,
		networkClient: c.TouchNetwork,
	} {
		if !changes || h.at[role] < 0 {
			continue
		}
		p := h.spot(role)
		next := state{triplet: c.Triplet}
		if role == domainClient || role == networkClient {
			known, _ := p.known()
			next = state{client: known.client.Touched(now)}
		}
		if h.store.renewal(p, next, l) {
			continue
		}
		if c.IsNew {
			p.newRow()
		}
		if err := h.store.change(p, next); err != nil {
			return err
		}
	}
	return nil
}

// Credit implements greylist.Store.
func (s *Store) Credit(ctx context.Context, client string, now time.Time) error {
	all := ids{networkClient: greylist.ID(client)}
	return s.with(ctx, all, func(h *hold) error {
		p := h.spot(networkClient)
		known, _ := p.known()
		next, ok := known.client.Credited(greylist.At(now))
		if !ok {
			return nil
		}
		return s.change(p, state{client: next})
	})
}

// Peek implements greylist.Store.
func (s *Store) Peek(ctx context.Context, key greylist.Key) (greylist.Record, error) {
	all := idsOf(key)
	var r greylist.Record
	err := s.with(ctx, all, func(h *hold) error {
		r = h.record()
		return nil
	})
	return r, err
}
