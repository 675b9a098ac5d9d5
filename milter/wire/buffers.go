package wire

import (
	"cmp"
	"sync"
	"sync/atomic"
)

// readSize is the size of the read buffer of a connection. The header of a common
// mail fits into it.
const readSize = 16 << 10

// A connection that reads a large chunk of a body borrows a buffer of largeSize octets,
// which takes several chunks at once. At most maxLarge are lent at any time; other
// connections go on with their own buffer.
const (
	largeSize = 128 << 10
	maxLarge  = 64
)

// Bounds of the headers of all messages under way. The first freeHeader octets of
// each message do not count. Beyond them, every octet, and fieldCost for every field,
// counts against Buffers.HeaderRoom.
const (
	// DefaultHeaderRoom is the default of Buffers.HeaderRoom.
	DefaultHeaderRoom = 128 << 20

	freeHeader = 16 << 10
	fieldCost  = 128 // of what is kept beside the octets of a field
)

// Buffers lends read buffers, and room for large headers, to the connections of
// one server. The zero value is ready; it must not be copied.
type Buffers struct {
	HeaderRoom int64 // octets for large headers at a time; 0 means DefaultHeaderRoom

	pool    sync.Pool
	large   sync.Pool
	larges  atomic.Int64 // large buffers that are lent
	headers atomic.Int64 // octets that are lent
}

// lend reserves n more octets for headers and reports whether there was room.
func (b *Buffers) lend(n int) bool {
	if b.headers.Add(int64(n)) <= cmp.Or(b.HeaderRoom, DefaultHeaderRoom) {
		return true
	}
	b.headers.Add(-int64(n))
	return false
}

func (b *Buffers) giveBack(n int) { b.headers.Add(-int64(n)) }

func (b *Buffers) get() *[readSize]byte {
	if buf, ok := b.pool.Get().(*[readSize]byte); ok {
		return buf
	}
	return new([readSize]byte)
}

func (b *Buffers) put(buf *[readSize]byte) { b.pool.Put(buf) }

// getLarge returns nil if too many large buffers are lent.
func (b *Buffers) getLarge() *[largeSize]byte {
	if b.larges.Add(1) > maxLarge {
		b.larges.Add(-1)
		return nil
	}
	if buf, ok := b.large.Get().(*[largeSize]byte); ok {
		return buf
	}
	return new([largeSize]byte)
}

func (b *Buffers) putLarge(buf *[largeSize]byte) {
	b.large.Put(buf)
	b.larges.Add(-1)
}
