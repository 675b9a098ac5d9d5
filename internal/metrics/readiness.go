package metrics

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

const (
	// maxConditions bounds the named conditions of a Readiness.
	maxConditions = 64
	// maxDetail bounds the text of a condition, in bytes.
	maxDetail = 200
)

// Readiness is whether a daemon should get work: it serves, it is not draining,
// and every named condition is true. The zero value is not serving.
type Readiness struct {
	mu         sync.Mutex
	serving    bool
	draining   bool
	conditions map[string]condition
}

type condition struct {
	ok     bool
	detail string
	look   func() (ok bool, detail string) // asked in place of both; nil if there is none
}

// Serving notes that all listeners accept connections.
func (r *Readiness) Serving() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serving = true
}

// Draining notes that the daemon is stopping. This cannot be undone.
func (r *Readiness) Draining() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
}

// Set notes whether a named condition is true. The detail is shown to everyone
// who asks over HTTP, so it must not have a secret or an address of a mail.
// Conditions beyond 64 are ignored.
func (r *Readiness) Set(name string, ok bool, detail string) {
	r.set(name, condition{ok: ok, detail: detail})
}

// Follow adds a condition that look finds. It is called for each report, so that the report
// has the error of now and not that of the first failure. It must not wait, and its detail
// is shown as that of Set is.
func (r *Readiness) Follow(name string, look func() (ok bool, detail string)) {
	r.set(name, condition{look: look})
}

func (r *Readiness) set(name string, c condition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conditions == nil {
		r.conditions = make(map[string]condition)
	}
	if _, known := r.conditions[name]; known || len(r.conditions) < maxConditions {
		r.conditions[name] = c
	}
}

// Remove removes a condition, when a reload has removed its subject.
func (r *Readiness) Remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conditions, name)
}

// Ready reports whether the daemon should get work, and why, with each condition
// on a line.
func (r *Readiness) Ready() (ready bool, report string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	line := func(name string, ok bool, detail string) {
		state := "ok"
		if !ok {
			state = "failing"
			ready = false
		}
		if detail != "" {
			state += ": " + detail
		}
		fmt.Fprintf(&b, "%s: %s\n", name, state)
	}
	ready = true
	line("serving", r.serving, "")
	line("not draining", !r.draining, "")
	for _, name := range slices.Sorted(maps.Keys(r.conditions)) {
		c := r.conditions[name]
		if c.look != nil {
			c.ok, c.detail = c.look()
		}
		line(oneLine(name), c.ok, oneLine(c.detail))
	}
	return ready, b.String()
}

func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.ToValidUTF8(s[:min(len(s), maxDetail)], "")
}
