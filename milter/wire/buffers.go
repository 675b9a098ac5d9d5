package wire

import (
	"sync"
	"sync/atomic"
)

// readSize is the size of the read buffer of a connection. The header of a common
// mail fits into it; body chunks are read without it.
const readSize = 16 << 10

// Bounds of the headers of all messages under way. The first freeHeader octets of
// each message do not count. Beyond them, every octet, and fieldCost for every field,
// counts against maxHeaders.
const (
	freeHeader = 64 << 10
	fieldCost  = 128 // of what is kept beside the octets of a field
	maxHeaders = 128 << 20
)

// Buffers lends read buffers, and room for large headers, to the connections of
// one server. The zero value is ready; it must not be copied.
type Buffers struct {
	pool    sync.Pool
	headers atomic.Int64 // octets that are lent
}

// lend reserves n more octets for headers and reports whether there was room.
func (b *Buffers) lend(n int) bool {
	if b.headers.Add(int64(n)) <= maxHeaders {
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
