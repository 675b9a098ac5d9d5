package dkim

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

// BodyHash computes the SHA-256 hash of a body's canonical form (RFC 6376
// sections 3.4.3 and 3.4.4). The body is written to it in pieces of any size.
// Line ends are CRLF; a single CR or LF is content. It uses a constant amount
// of memory.
type BodyHash struct {
	hash    hash.Hash
	relaxed bool

	// What was read, but may not belong to the canonical form:
	breaks int  // CRLFs, dropped at the end of the body
	space  bool // relaxed: white space, dropped before a CRLF
	cr     bool // a CR whose LF may be in the next write

	content bool  // something other than line breaks was hashed
	size    int64 // octets that were hashed, without those in pending
	pending []byte
	buffer  *[pendingSize]byte // of pending, until Sum
}

// pendingSize is how many octets are collected before they are hashed. SHA-256
// is slow with small writes.
const pendingSize = 4 << 10

// buffers are those of hashes that have ended.
var buffers = sync.Pool{New: func() any { return new([pendingSize]byte) }}

// NewBodyHash returns the hash of an empty body.
func NewBodyHash(c Canonicalization) *BodyHash {
	buffer := buffers.Get().(*[pendingSize]byte)
	return &BodyHash{
		hash:    sha256.New(),
		relaxed: c == Relaxed,
		pending: buffer[:0],
		buffer:  buffer,
	}
}

// Write adds p to the body. It never fails.
func (h *BodyHash) Write(p []byte) (int, error) {
	n := len(p)
	if h.cr && len(p) > 0 {
		h.cr = false
		if p[0] == '\n' {
			h.lineBreak()
			p = p[1:]
		} else {
			h.emit([]byte{'\r'})
		}
	}
	for len(p) > 0 {
		switch {
		case len(p) == 1 && p[0] == '\r':
			h.cr = true
			p = nil
		case p[0] == '\r' && p[1] == '\n':
			p = h.lineBreaks(p)
		case h.relaxed && isWSP(p[0]) && !plainSpace(p, h.space):
			h.space = true
			p = p[1:]
		default:
			run := h.run(p)
			h.emit(p[:run])
			p = p[run:]
		}
	}
	return n, nil
}

// plainSpace reports whether p begins with a space that is already canonical:
// a single one with text after it.
func plainSpace(p []byte, space bool) bool {
	return !space && p[0] == ' ' && len(p) > 1 && p[1] > ' '
}

func isWSP(b byte) bool { return b == ' ' || b == '\t' }

func (h *BodyHash) lineBreak() {
	h.space = false
	h.breaks++
}

func (h *BodyHash) lineBreaks(p []byte) []byte {
	for len(p) > 1 && p[0] == '\r' && p[1] == '\n' {
		h.lineBreak()
		p = p[2:]
	}
	return p
}

// run returns how many octets at the beginning of p are content that needs no
// change. p begins with content, so there is at least one. A run does not end
// in octets that may have to be dropped, depending on what follows them.
func (h *BodyHash) run(p []byte) int {
	n := len(p)
	if h.relaxed {
		n = max(1, cleanPrefix(p))
	}
	if n == len(p) && p[n-1] == '\r' {
		n--
	}
	for n >= 2 && p[n-2] == '\r' && p[n-1] == '\n' {
		n -= 2
	}
	// A single CR at the start is content.
	return max(1, n)
}

// emit adds content. What was held back is added first.
func (h *BodyHash) emit(b []byte) {
	h.content = true
	for ; h.breaks > 0; h.breaks-- {
		h.room(len(crlf))
		h.pending = append(h.pending, crlf...)
	}
	if h.space {
		h.space = false
		h.room(1)
		h.pending = append(h.pending, ' ')
	}
	h.add(b)
}

func (h *BodyHash) add(b []byte) {
	h.room(len(b))
	if len(b) > pendingSize {
		h.hash.Write(b)
		h.size += int64(len(b))
		return
	}
	h.pending = append(h.pending, b...)
}

// room makes space for n octets in pending. If n is more than pending can
// hold, it empties pending.
func (h *BodyHash) room(n int) {
	if len(h.pending)+n > pendingSize {
		h.flush()
	}
}

func (h *BodyHash) flush() {
	h.hash.Write(h.pending)
	h.size += int64(len(h.pending))
	h.pending = h.pending[:0]
}

// Size returns the number of octets of the canonical form. It is valid after
// Sum.
func (h *BodyHash) Size() int64 { return h.size }

// Sum ends the body and returns its hash. Write must not be called after it.
func (h *BodyHash) Sum() [sha256.Size]byte {
	if h.cr {
		h.cr = false
		h.emit([]byte{'\r'})
	}
	// Line breaks at the end count as one. A body without content becomes one
	// line break in the simple form, and is empty in the relaxed form.
	if h.content || !h.relaxed {
		h.add([]byte(crlf))
	}
	h.flush()
	if h.buffer != nil {
		buffers.Put(h.buffer)
		h.pending, h.buffer = nil, nil
	}
	var sum [sha256.Size]byte
	h.hash.Sum(sum[:0])
	return sum
}

const (
	ones  = 0x0101010101010101
	lows  = 0x7f * ones
	highs = 0x80 * ones
)

// cleanBlock is how much of a body is searched in one step: several whole
// strides, and the octet after them.
const cleanBlock = 36*cleanStride + 1

// cleanPrefix returns the length of the longest beginning of p that relaxed
// canonicalization does not change. It ends before a tab, and before a space
// that is not followed by text. A space at the end of p also ends it, because
// what follows is unknown.
func cleanPrefix(p []byte) int {
	if hasCleanBlocks {
		return cleanFrom(p, cleanBlocks(p))
	}
	return cleanWords(p)
}

// cleanWords is cleanPrefix without the instructions of a processor.
func cleanWords(p []byte) int {
	for done := 0; ; {
		block := p[done:min(done+cleanBlock, len(p))]
		n := cleanRun(block)
		done += n
		// A space at the end of a block is checked again together with the next
		// octet.
		if n == 0 || n < len(block)-1 || len(block) < cleanBlock {
			return done
		}
	}
}

// Four words of eight octets. They overlap by one octet, so each pair of
// neighbours is in one word.
const (
	cleanStep   = 7
	cleanStride = 4 * cleanStep
)

// cleanRun is cleanPrefix for a block. Tabs, and blocks without a space as in
// attachments, are found by assembly code of Go's library. Otherwise it checks
// four words at a time, because finding each space separately would cost more
// than hashing.
func cleanRun(p []byte) int {
	if tab := bytes.IndexByte(p, '\t'); tab >= 0 {
		p = p[:tab]
	}
	if bytes.IndexByte(p, ' ') < 0 {
		return len(p)
	}
	i := 0
	for ; i+cleanStride < len(p); i += cleanStride {
		q := p[i : i+cleanStride+1]
		if endsClean(q)|endsClean(q[cleanStep:])|endsClean(q[2*cleanStep:])|endsClean(q[3*cleanStep:]) != 0 {
			break
		}
	}
	return cleanFrom(p, i)
}

// cleanFrom is cleanPrefix if the first i octets are known to be clean.
func cleanFrom(p []byte, i int) int {
	for ; i < len(p); i++ {
		if p[i] == '\t' || p[i] == ' ' && (i+1 == len(p) || p[i+1] <= ' ') {
			break
		}
	}
	return i
}

// endsClean is not zero if a space is followed by an octet up to ' ' within
// the first eight octets of p.
func endsClean(p []byte) uint64 {
	w := binary.LittleEndian.Uint64(p)
	text := (w&lows + (0x80-0x21)*ones) | w // the high bit of octets above ' '
	// Of the octets up to ' ', only ' ' itself has bit 5 set. The result is in
	// the high bit of the second octet of each pair, so the first octet of p has
	// none.
	return ^(text | text<<8) & (w << 10) & (highs &^ 0x80)
}
