package service

import "sync/atomic"

// Current holds the state in force, and what outlives a state. The zero value
// holds no state.
type Current[S any] struct {
	held atomic.Pointer[held[S]]
	kept kept
}

// held is a state with its life.
type held[S any] struct {
	state S
	life  *Life
}

// NewLife returns the life of a state that may be put in force here. failed is
// called with errors of closing; it may be nil.
func (c *Current[S]) NewLife(failed func(error)) *Life { return newLife(&c.kept, failed) }

// Acquire returns the state in force, which stays open until release is called.
// Without a state in force it returns the zero value.
func (c *Current[S]) Acquire() (state S, release func()) {
	for {
		h := c.held.Load()
		if h == nil {
			return state, func() {}
		}
		if h.life.use() {
			return h.state, h.life.release
		}
	}
}

// Apply puts a state in force that was built with a life of c. The background
// work of the previous state ends first. The previous state itself is closed when
// its last user has released it.
func (c *Current[S]) Apply(state S, l *Life) {
	for _, f := range l.begins {
		f()
	}
	c.swap(&held[S]{state, l})
	l.start()
}

// Close removes the state in force.
func (c *Current[S]) Close() { c.swap(nil) }

func (c *Current[S]) swap(next *held[S]) {
	if old := c.held.Swap(next); old != nil {
		old.life.running.stop()
		old.life.done()
	}
}
