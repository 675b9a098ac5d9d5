package checks

import "sync"

// maxInstances is how many messages Instances remembers. It is far more than
// there are at one time.
const maxInstances = 4096

// Instances remembers messages that have been handled. The zero value is ready.
// It is safe for concurrent use.
type Instances struct {
	mu   sync.Mutex
	seen map[string]bool
	ring [maxInstances]string // in the order of arrival
	next int
}

// First reports whether an instance is new. A message without one, from another
// MTA than Postfix, always is.
func (i *Instances) First(instance string) bool {
	if instance == "" {
		return true
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.seen[instance] {
		return false
	}
	if i.seen == nil {
		i.seen = make(map[string]bool, maxInstances)
	}
	delete(i.seen, i.ring[i.next])
	i.ring[i.next], i.seen[instance] = instance, true
	i.next = (i.next + 1) % maxInstances
	return true
}
