package dkim

import "sync"

// Bounds of a KeyCache.
const (
	maxCachedKeys   = 1024
	maxCachedRecord = 4096 // octets
)

// KeyCache remembers what key records say: large senders use few keys, and an RSA
// key takes as long to read as a tenth of a verification. It knows records, not
// names, so it never goes stale. It is safe for concurrent use.
type KeyCache struct {
	mu   sync.Mutex
	keys map[string]*publicKey
}

// NewKeyCache returns an empty cache.
func NewKeyCache() *KeyCache { return &KeyCache{keys: make(map[string]*publicKey)} }

// parse is parseKey, from memory if possible. A nil cache remembers nothing, and
// no cache a record that is no key.
func (c *KeyCache) parse(record string) (*publicKey, error) {
	if c == nil || len(record) > maxCachedRecord {
		return parseKey(record)
	}
	c.mu.Lock()
	key := c.keys[record]
	c.mu.Unlock()
	if key != nil {
		return key, nil
	}
	key, err := parseKey(record)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for old := range c.keys {
		if len(c.keys) < maxCachedKeys {
			break
		}
		delete(c.keys, old) // any: no one can choose which
	}
	c.keys[record] = key
	return key, nil
}
