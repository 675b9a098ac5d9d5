package lastgood

import (
	"slices"
	"sync"

	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
)

// Guard knows which texts are held back.
type Guard struct {
	metrics *metrics.Metrics // may be nil

	mu    sync.Mutex
	held  map[string]bool // by name
	taken map[string]bool // those that an administrator accepted

	// counted are readings that were made to count entries. The reload that is
	// running uses them, so that it does not read the same text twice.
	counted map[entryKey]any
}

type guardKey struct{}

// Of returns the guard of a daemon. A guard outlives the states.
func Of(l *service.Life, r service.Runtime) (*Guard, error) {
	return service.Keep(l, guardKey{}, func() (service.Opened[*Guard], error) {
		return service.Opened[*Guard]{Value: &Guard{
			metrics: r.Metrics, held: map[string]bool{}, taken: map[string]bool{}, counted: map[entryKey]any{},
		}}, nil
	})
}

// Held returns the names of the texts that are held back, sorted.
func (g *Guard) Held() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var names []string
	for name := range g.held {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Take lets the next reload use the texts that are held back, and returns their
// names.
func (g *Guard) Take() []string {
	names := g.Held()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range names {
		g.taken[name] = true
	}
	return names
}

func (g *Guard) hold(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held[name] = true
	g.count()
}

// count updates the gauge.
func (g *Guard) count() {
	if g.metrics != nil {
		g.metrics.HeldBack(len(g.held))
	}
}

func (g *Guard) release(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.held, name)
	delete(g.taken, name)
	g.count()
}

func (g *Guard) take(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.taken[name]
}

// leaveCounted stores a reading for takeCounted, which the same reload calls
// next.
func (g *Guard) leaveCounted(key entryKey, reading any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counted[key] = reading
}

// takeCounted removes and returns the reading that was stored under a key, nil
// for none.
func (g *Guard) takeCounted(key entryKey) any {
	g.mu.Lock()
	defer g.mu.Unlock()
	reading := g.counted[key]
	delete(g.counted, key)
	return reading
}
