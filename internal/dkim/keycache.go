package dkim

import "sync"

// Bounds of a KeyCache.
const (
	maxCachedKeys   = 1024
	maxCachedRecord = 4096 // octets
)

// KeyCache remembers parsed key records. Large senders use few keys, and
// parsing an RSA key takes a tenth of the time of a verification. Its index is
// the text of the record, not a DNS name, so an entry is never out of date. It
// is safe for concurrent use.
type KeyCache struct {
	mu   sync.Mutex
	keys map[string]*publicKey
}

// NewKeyCache returns an empty cache.
func NewKeyCache() *KeyCache { return &KeyCache{keys: make(map[string]*publicKey)} }

// parse is parseKey with the cache. A nil cache remembers nothing. Records
// that are not valid keys are never remembered.
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
		delete(c.keys, old) // any one, so that senders cannot choose it
	}
	c.keys[record] = key
	return key, nil
}
