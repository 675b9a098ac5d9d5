package memstore

// slot is the number of a thing in a slab, from 1; 0 is none.
type slot = uint32

const blockLen = 256

// slab keeps things in blocks. They do not move, and the garbage collector looks at whole
// blocks, not at each thing.
type slab[T any] struct {
	blocks []*[blockLen]T
	free   []slot
}

// at returns the thing in a slot.
func (s *slab[T]) at(n slot) *T { return &s.blocks[(n-1)/blockLen][(n-1)%blockLen] }

// slots returns the number of the last slot.
func (s *slab[T]) slots() slot { return slot(len(s.blocks) * blockLen) }

// take returns a slot for a new thing, which is the zero value. The slot that was given
// back last is the next one to be taken.
func (s *slab[T]) take() slot {
	if len(s.free) == 0 {
		s.blocks = append(s.blocks, new([blockLen]T))
		for i := range slot(blockLen) {
			s.free = append(s.free, s.slots()-i)
		}
	}
	last := len(s.free) - 1
	n := s.free[last]
	s.free = s.free[:last]
	return n
}

// give gives a slot back. When there is nothing in the slab, it keeps no memory.
func (s *slab[T]) give(n slot) {
	*s.at(n) = *new(T)
	if s.free = append(s.free, n); slot(len(s.free)) == s.slots() {
		*s = slab[T]{}
	}
}
