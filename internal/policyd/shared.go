package policyd

import "sync/atomic"

// shared is what one state after the other uses as long as its settings stay
// the same: what it has learnt outlives a reload. The last user closes it.
type shared[T any] struct {
	value T
	key   string // the settings it was made of
	close func()
	users atomic.Int64
}

func share[T any](value T, key string, close func()) *shared[T] {
	h := &shared[T]{value: value, key: key, close: close}
	h.users.Store(1)
	return h
}

// use counts another state in. The caller knows one that has not let go yet.
func (h *shared[T]) use() *shared[T] {
	h.users.Add(1)
	return h
}

// done counts a state out.
func (h *shared[T]) done() error {
	if h.users.Add(-1) == 0 {
		h.close()
	}
	return nil
}

// previous is the state that a reload will replace, or nil. It stays open until
// the one that is being built has been applied or discarded.
func (s *state) previous() *state {
	if s.settings.current == nil {
		return nil // settings that were only read
	}
	return s.settings.current.p.Load()
}
