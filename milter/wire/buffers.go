package wire

import "sync"

// readSize is the read buffer of a connection: the header of a common mail fits,
// and a body chunk is read past it directly.
const readSize = 16 << 10

// Buffers lends read buffers to the connections of one server. The zero value is
// ready; it must not be copied.
type Buffers struct{ pool sync.Pool }

func (b *Buffers) get() *[readSize]byte {
	if buf, ok := b.pool.Get().(*[readSize]byte); ok {
		return buf
	}
	return new([readSize]byte)
}

func (b *Buffers) put(buf *[readSize]byte) { b.pool.Put(buf) }
