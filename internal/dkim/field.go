package dkim

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// Field is one header field, octet by octet as it was sent.
type Field struct {
	// Name is what is before the colon, white space included.
	Name string
	// Value is what is after the colon, leading space included, without
	// the final line break. Line breaks inside may be CRLF or LF: Postfix hands
	// folded values over with LF.
	Value string
}

// Is reports whether f is a field of that name.
func (f Field) Is(name string) bool {
	return strings.EqualFold(trimRightWSP(f.Name), name)
}

func trimRightWSP(s string) string {
	return strings.TrimRight(s, " \t")
}

// ErrHeaderTooLarge is what ReadLine returns for a line above its limit.
var ErrHeaderTooLarge = errors.New("dkim: header too large")

// ReadLine reads a line with its end; the last one may have none. A line of more
// than limit octets is ErrHeaderTooLarge.
func ReadLine(r *bufio.Reader, limit int) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > limit {
			return "", ErrHeaderTooLarge
		}
		if err != bufio.ErrBufferFull {
			return string(line), err
		}
	}
}

// NewCRLFReader returns a reader that turns the LF line ends of a file into
// the CRLF of the wire. Line ends that are CRLF already stay.
func NewCRLFReader(r io.Reader) io.Reader {
	return &crlfReader{r: bufio.NewReader(r)}
}

type crlfReader struct {
	r    *bufio.Reader
	last byte
	lf   bool // a LF is due
}

func (c *crlfReader) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if c.lf {
			p[n], c.last, c.lf = '\n', '\n', false
			n++
			continue
		}
		b, err := c.r.ReadByte()
		if err != nil {
			if n > 0 {
				return n, nil
			}
			return 0, err
		}
		if b == '\n' && c.last != '\r' {
			c.lf = true
			b = '\r'
		}
		p[n], c.last = b, b
		n++
	}
	return n, nil
}
