package checks

import "sync"

// maxInstances is how many messages Instances remembers: far more than are
// under way at one time.
const maxInstances = 4096

// Instances remembers for which messages something was done. The zero value is
// ready. It is safe for concurrent use.
type Instances struct {
	mu   sync.Mutex
	seen map[string]bool
	ring [maxInstances]string // in the order of their coming
	next int
}

// First reports whether an instance comes for the first time. A message without
// one (another MTA than Postfix) always does.
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
