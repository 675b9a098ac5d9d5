package remote

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	shards = 16
	// sample is how many entries are compared to find one to drop.
	sample = 8
)

// cache keeps answers. When it is full, a new answer replaces the oldest of a sample.
type cache struct {
	seed   maphash.Seed
	max    int // entries of one shard
	shards [shards]shard
}

type shard struct {
	mu      sync.RWMutex
	entries map[string]entry
}

type entry struct {
	values []string
	at     time.Time
}

func newCache(max int) *cache {
	c := &cache{seed: maphash.MakeSeed(), max: (max + shards - 1) / shards}
	for i := range c.shards {
		c.shards[i].entries = make(map[string]entry)
	}
	return c
}

func (c *cache) shard(key string) *shard {
	return &c.shards[maphash.String(c.seed, key)%shards]
}

func (c *cache) get(key string) (entry, bool) {
	s := c.shard(key)
	s.mu.RLock()
	e, ok := s.entries[key]
	s.mu.RUnlock()
	return e, ok
}

func (c *cache) put(key string, e entry) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.entries[key]; !ok && len(s.entries) >= c.max {
		s.dropOne()
	}
	s.entries[key] = e
}

// dropOne drops the oldest of a few entries; the order of a map is random enough.
func (s *shard) dropOne() {
	var oldest string
	var at time.Time
	n := 0
	for key, e := range s.entries {
		if n == 0 || e.at.Before(at) {
			oldest, at = key, e.at
		}
		if n++; n == sample {
			break
		}
	}
	delete(s.entries, oldest)
}

func (c *cache) len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.entries)
		s.mu.RUnlock()
	}
	return n
}
