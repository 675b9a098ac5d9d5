package memstore

import (
	"context"

	"github.com/postern-mail/postern/greylist"
)

// Walk implements greylist.Browser for what is in memory.
func (s *Store) Walk(ctx context.Context, yield func(greylist.Entry) error) error {
	var copied []greylist.Entry
	for i := range s.shards {
		if err := ctx.Err(); err != nil {
			return err
		}
		copied = s.shards[i].appendEntries(copied[:0])
		for _, e := range copied {
			if err := yield(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (sh *shard) appendEntries(to []greylist.Entry) []greylist.Entry {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.all(func(slot int) {
		if !sh.slot(slot).is(deleted) {
			to = append(to, sh.entry(slot))
		}
	})
	return to
}

// Put implements greylist.Browser.
func (s *Store) Put(ctx context.Context, entries []greylist.Entry) error {
	for _, e := range entries {
		err := s.with(ctx, ids{networkClient: e.ID}, func(h *hold) error {
			p := h.spot(networkClient)
			known, _ := p.known()
			merged := greylist.Entry{Triplet: known.triplet, Client: known.client}.Merge(e)
			return s.change(p, state{merged.Triplet, merged.Client})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Delete implements greylist.Browser.
func (s *Store) Delete(ctx context.Context, all []greylist.ID) (int, error) {
	n := 0
	for _, id := range all {
		err := s.with(ctx, ids{networkClient: id}, func(h *hold) error {
			p := h.spot(networkClient)
			if _, ok := p.known(); ok {
				n++
				s.forget(p.shard, p.slot)
			}
			return nil
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// forget removes an entry. With a backing, it is removed once the backing has
// removed it.
func (s *Store) forget(sh *shard, slot int) {
	if s.backing == nil {
		sh.remove(slot)
		return
	}
	sh.slot(slot).set(deleted, true)
	s.mark(sh, slot)
}

// Purge removes expired entries, one shard after the other, and returns how many
// there were. With a backing it only frees memory, and keeps entries that wait to be
// written. The owner of the backing purges the backing.
func (s *Store) Purge(now greylist.Stamp, l greylist.Limits) int {
	n := 0
	for i := range s.shards {
		n += s.purgeShard(&s.shards[i], now, l)
	}
	return n
}

func (s *Store) purgeShard(sh *shard, now greylist.Stamp, l greylist.Limits) int {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	n := 0
	sh.all(func(slot int) {
		if e := sh.slot(slot); !e.is(dirty) && e.expired(now, l) {
			s.drop(sh, slot)
			n++
		}
	})
	for network, w := range sh.flood {
		if !w.runs(now) {
			delete(sh.flood, network)
		}
	}
	return n
}

// Discard drops an entry that the backing has deleted because it had expired. If
// the entry has been used in memory meanwhile, it is written again instead.
func (s *Store) Discard(id greylist.ID, rowID int64) {
	hash := s.hash(id)
	sh := &s.shards[shardOf(hash)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.away.row(hash) == rowID {
		sh.away.remove(hash)
	}
	slot := sh.find(hash, id)
	if slot < 0 || sh.slot(slot).rowID != rowID {
		return
	}
	e := sh.slot(slot)
	e.rowID = 0
	switch {
	case e.is(behind):
		s.mark(sh, slot)
	case !e.is(dirty):
		s.drop(sh, slot)
	}
}

// Len returns the number of entries in memory.
func (s *Store) Len() int {
	n := 0
	for i := range s.shards {
		s.shards[i].mu.Lock()
		n += s.shards[i].live
		s.shards[i].mu.Unlock()
	}
	return n
}
