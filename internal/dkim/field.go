package dkim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Field is one header field, octet by octet as it was sent.
type Field struct {
	// Name is what stands before the colon, white space included.
	Name string
	// Value is what stands after the colon, leading space included, without
	// the final line break. Line breaks inside may be CRLF or LF: Postfix hands
	// folded values over with LF.
	Value string
}

// Is tells whether f is a field of that name.
func (f Field) Is(name string) bool {
	return strings.EqualFold(trimRightWSP(f.Name), name)
}

func trimRightWSP(s string) string {
	return strings.TrimRight(s, " \t")
}

// MaxHeaderBytes bounds the header that ReadHeader reads.
const MaxHeaderBytes = 4 << 20

// ErrHeaderTooLarge is what ReadHeader returns for a header of more than
// MaxHeaderBytes or MaxFields.
var ErrHeaderTooLarge = errors.New("dkim: header too large")

// ReadHeader reads the header of a message, the empty line after it included.
// What follows in r is the body. Lines may end in CRLF or LF. A message that
// ends inside the header has no body, which is not an error. A line that is
// neither a field nor a continuation ends the header with an error.
func ReadHeader(r *bufio.Reader) ([]Field, error) {
	var fields []Field
	size := 0
	for {
		line, err := ReadLine(r, MaxHeaderBytes-size)
		if err != nil && err != io.EOF {
			return fields, err
		}
		size += len(line)
		text := strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if text == "" {
			return fields, nil
		}
		if fields, err = addLine(fields, text); err != nil {
			return fields, err
		}
	}
}

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

func addLine(fields []Field, text string) ([]Field, error) {
	if text[0] == ' ' || text[0] == '\t' {
		if len(fields) == 0 {
			return fields, errors.New("dkim: header begins with a continuation line")
		}
		fields[len(fields)-1].Value += "\r\n" + text
		return fields, nil
	}
	name, value, ok := strings.Cut(text, ":")
	if !ok {
		return fields, fmt.Errorf("dkim: header line %d has no colon", len(fields)+1)
	}
	if len(fields) == MaxFields {
		return fields, ErrHeaderTooLarge
	}
	return append(fields, Field{Name: name, Value: value}), nil
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
