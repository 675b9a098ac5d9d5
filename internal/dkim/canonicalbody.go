package dkim

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// BodyHash computes the SHA-256 hash of a body's canonical form (RFC 6376
// sections 3.4.3 and 3.4.4) while the body is written to it in pieces of any
// size. Line ends are CRLF; a CR or LF alone is content. It keeps a constant
// amount of memory.
type BodyHash struct {
	hash    hash.Hash
	relaxed bool

	// What has been read but may yet disappear:
	breaks int  // CRLFs, which are dropped at the end of the body
	space  bool // relaxed: white space, dropped before a CRLF
	cr     bool // a CR whose LF may come with the next write

	content bool  // something other than line breaks was hashed
	size    int64 // octets that left pending
	pending []byte
}

// pendingSize is how much is gathered before it is hashed: SHA-256 is slow when
// fed words.
const pendingSize = 4 << 10

// NewBodyHash returns the hash of an empty body.
func NewBodyHash(c Canonicalization) *BodyHash {
	return &BodyHash{
		hash:    sha256.New(),
		relaxed: c == Relaxed,
		pending: make([]byte, 0, pendingSize),
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

// plainSpace reports whether p begins with a space that is canonical as it
// is: a single one, with text after it.
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

// run returns how many octets of p, one at least, are content as they are.
// The run never ends in something that could still disappear. p begins with
// content.
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
	// A CR alone at the start is content.
	return max(1, n)
}

// emit adds content, after what was held back before it.
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

// room makes space for n octets in pending, or empties it when n is more than
// it can hold.
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

// Size is the number of octets of the canonical form, after Sum.
func (h *BodyHash) Size() int64 { return h.size }

// Sum ends the body and returns its hash. Nothing may be written after it.
func (h *BodyHash) Sum() [sha256.Size]byte {
	if h.cr {
		h.cr = false
		h.emit([]byte{'\r'})
	}
	// Line breaks at the end count as one. A body without content is one line
	// break in the simple form and empty in the relaxed one.
	if h.content || !h.relaxed {
		h.add([]byte(crlf))
	}
	h.flush()
	var sum [sha256.Size]byte
	h.hash.Sum(sum[:0])
	return sum
}

const (
	ones  = 0x0101010101010101
	lows  = 0x7f * ones
	highs = 0x80 * ones
)

// cleanBlock is how much of a body is looked at at once: a number of whole strides,
// and the octet after them.
const cleanBlock = 36*cleanStride + 1

// cleanPrefix returns the length of the longest beginning of p that relaxed
// canonicalization leaves as it is: it ends before a tab and before a space that is
// not followed by text. What an end of p hides counts as no text.
func cleanPrefix(p []byte) int {
	for done := 0; ; {
		block := p[done:min(done+cleanBlock, len(p))]
		n := cleanRun(block)
		done += n
		// A space at the end of a block is looked at again with what follows.
		if n == 0 || n < len(block)-1 || len(block) < cleanBlock {
			return done
		}
	}
}

// Four words of eight octets that overlap by one: so each pair of neighbours is in
// one of them.
const (
	cleanStep   = 7
	cleanStride = 4 * cleanStep
)

// cleanRun is cleanPrefix for a block. Tabs, and blocks without a space, which are
// those of attachments, are found by assembly of Go's. Else it looks at four words
// at a time; finding single spaces one by one would cost more than hashing.
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
	for ; i < len(p); i++ {
		if p[i] == ' ' && (i+1 == len(p) || p[i+1] <= ' ') {
			break
		}
	}
	return i
}

// endsClean is not zero if a space is followed by an octet up to ' ' within the first
// eight octets of p.
func endsClean(p []byte) uint64 {
	w := binary.LittleEndian.Uint64(p)
	text := (w&lows + (0x80-0x21)*ones) | w // the high bit of octets above ' '
	// Of the octets up to ' ' only ' ' itself has bit 5. The result is about the second
	// octet of each pair, which the first octet is not.
	return ^(text | text<<8) & (w << 10) & (highs &^ 0x80)
}
