package memstore

import "github.com/postern-mail/postern/greylist"

// Batch is what changed since the last one, for a backing to write.
type Batch struct {
	Rows    []Row // write sets RowID of rows that get one
	entries []*entry
	version []uint32
}

// Take copies at most limit changed entries (more by what one shard has). The caller
// gives the batch to Written or to Failed; there is one batch at a time.
func (s *Store) Take(limit int) *Batch {
	b := new(Batch)
	for i := range s.shards {
		if len(b.Rows) >= limit {
			break
		}
		b.take(&s.shards[i])
	}
	return b
}

func (b *Batch) take(sh *shard) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, e := range sh.dirty {
		b.Rows = append(b.Rows, e.Row)
		b.entries = append(b.entries, e)
		b.version = append(b.version, e.version)
	}
	sh.dirty = nil
}

// Written notes that the backing holds the batch.
func (s *Store) Written(b *Batch) {
	for i, e := range b.entries {
		sh := &s.shards[s.shardOf(b.Rows[i].ID)]
		sh.mu.Lock()
		e.RowID = b.Rows[i].RowID
		switch {
		case e.version != b.version[i]: // changed again
			sh.dirty = append(sh.dirty, e)
		case e.Deleted:
			delete(sh.entries, e.ID)
			sh.evicted++
		default:
			e.dirty = false
		}
		sh.mu.Unlock()
	}
}

// Failed puts the batch back.
func (s *Store) Failed(b *Batch) {
	for i, e := range b.entries {
		sh := &s.shards[s.shardOf(b.Rows[i].ID)]
		sh.mu.Lock()
		sh.dirty = append(sh.dirty, e)
		sh.mu.Unlock()
	}
}

// Rewrite marks everything as unknown to the backing, which has started anew.
func (s *Store) Rewrite() {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for _, e := range sh.entries {
			e.RowID = 0
			if !e.Deleted {
				s.mark(sh, e)
			}
		}
		sh.mu.Unlock()
	}
}

// Barrier calls visit for every ID in memory, each shard under its lock. What
// is added after it has returned has seen what the caller set up before.
func (s *Store) Barrier(visit func(greylist.ID)) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for id := range sh.entries {
			visit(id)
		}
		sh.mu.Unlock()
	}
}
