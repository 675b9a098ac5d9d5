package dkim

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// Field is one header field, with exactly the octets that were sent.
type Field struct {
	// Name is the text before the colon, including white space.
	Name string
	// Value is the text after the colon, including space at the beginning,
	// without the final line break. Line breaks inside may be CRLF or LF, because
	// Postfix passes folded values with LF.
	Value string
}

// Is reports whether f has that name.
func (f Field) Is(name string) bool {
	return strings.EqualFold(trimRightWSP(f.Name), name)
}

// trimRightWSP is strings.TrimRight, which takes several times as long. It is called many
// times for each field.
func trimRightWSP(s string) string {
	n := len(s)
	for n > 0 && isWSP(s[n-1]) {
		n--
	}
	return s[:n]
}

// ErrHeaderTooLarge is the error of ReadLine for a line that is longer than
// the limit.
var ErrHeaderTooLarge = errors.New("dkim: header too large")

// ReadLine reads a line including its line end, which may be missing from the
// last line. If the line has more than limit octets, the error is
// ErrHeaderTooLarge.
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

// NewCRLFReader returns a reader that replaces the LF line ends of a file by
// CRLF, as they are in SMTP. CRLF line ends do not change.
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
