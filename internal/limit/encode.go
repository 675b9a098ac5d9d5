package limit

import (
	"encoding/binary"
	"errors"
)

var errCoded = errors.New("the counts cannot be read")

// maxText bounds the length of a text of a Spread in a file.
const maxText = 64

// Append appends the series to b, in a form that does not depend on the machine.
func (s *Series) Append(b []byte) []byte {
	cells := len(s.older)
	if s.last.n > 0 {
		cells++
	}
	b = binary.AppendUvarint(b, uint64(cells))
	before := int64(0)
	for c := range s.cells {
		b = binary.AppendVarint(b, c.at-before)
		b = binary.AppendVarint(b, c.n)
		before = c.at
	}
	return b
}

// Read is the reverse of Append. It returns the rest of b.
func (s *Series) Read(b []byte) ([]byte, error) {
	r := reader{b: b}
	n := r.count(Cells + 1)
	*s = Series{}
	at := int64(0)
	for range n {
		at += r.varint()
		c := cell{at, r.varint()}
		if c.n <= 0 || c.n > maxSum-s.sum || s.last.n > 0 && s.last.at >= at {
			return nil, errCoded
		}
		s.sum += c.n
		s.push(c)
	}
	return r.b, r.err
}

// Append appends the set to b.
func (s *Spread) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.seen)))
	for _, m := range s.seen {
		b = binary.AppendVarint(b, m.last)
		b = binary.AppendUvarint(b, uint64(len(m.text)))
		b = append(b, m.text...)
	}
	return b
}

// Read is the reverse of Append.
func (s *Spread) Read(b []byte) ([]byte, error) {
	r := reader{b: b}
	*s = Spread{}
	for range r.count(MaxNetworks + 1) {
		m := seen{last: r.varint()}
		n := r.count(maxText)
		if r.err != nil || n > len(r.b) {
			return nil, errCoded
		}
		m.text, r.b = string(r.b[:n]), r.b[n:]
		s.seen = append(s.seen, m)
	}
	return r.b, r.err
}

// reader reads numbers. After an error, it returns only 0.
type reader struct {
	b   []byte
	err error
}

func (r *reader) varint() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 || r.err != nil {
		r.err = errCoded
		return 0
	}
	r.b = r.b[size:]
	return n
}

// count reads the number of following items. A number above most is an error.
func (r *reader) count(most uint64) int {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > most || r.err != nil {
		r.err = errCoded
		return 0
	}
	r.b = r.b[size:]
	return int(n)
}
