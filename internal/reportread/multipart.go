package reportread

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// multipart reads the parts of a mail: next moves to a part, and Read reads it (RFC 2046
// section 5.1). Unlike mime/multipart it does not look at the headers of parts, so that a
// faulty one does not hide the parts after it.
type multipart struct {
	lines
	mark     []byte // "--" and the boundary
	text     []byte // the last line, or the last piece of a long one
	line     []byte // the rest of it
	newline  string // the end of the last line. Before a boundary it is not part of the text
	boundary bool   // the line that begins the next part was read
	closed   bool   // the line that ends the last part was read
}

func newMultipart(in io.Reader, boundary string) *multipart {
	mark := "--" + strings.TrimRight(boundary, " \t")
	return &multipart{lines: lines{in: bufio.NewReaderSize(in, 4096+len(mark))}, mark: []byte(mark)}
}

// next skips the rest of the part, or what is before the first one, and reports whether
// there is another part.
func (m *multipart) next() bool {
	for m.advance() {
		continue
	}
	if !m.boundary {
		return false
	}
	m.boundary, m.newline = false, ""
	return true
}

// failed returns why the parts could not be read to the end of the mail, or nil. A mail
// may end without its last boundary.
func (m *multipart) failed() error {
	if m.closed || errors.Is(m.err, io.EOF) || errors.Is(m.err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("mail: %w", m.err)
}

// Read reads the part that next has moved to.
func (m *multipart) Read(p []byte) (int, error) {
	for len(m.line) == 0 {
		if !m.advance() {
			return 0, m.ended()
		}
	}
	n := copy(p, m.line)
	m.line = m.line[n:]
	return n, nil
}

// ended returns why there is no more of a part.
func (m *multipart) ended() error {
	switch {
	case m.boundary || m.closed:
		return io.EOF
	case errors.Is(m.err, io.EOF):
		return io.ErrUnexpectedEOF // before the last boundary
	}
	return m.err
}

// advance reads the next line of the part, or a piece of a long one. It reports whether
// there is one.
func (m *multipart) advance() bool {
	m.line = nil
	if m.err != nil || m.boundary || m.closed {
		return false
	}
	piece, begins := m.piece()
	if begins && !m.middle {
		switch rest, isMark := bytes.CutPrefix(bytes.TrimRight(piece, " \t\r\n"), m.mark); {
		case isMark && len(rest) == 0:
			m.boundary = true
			return false
		case isMark && string(rest) == "--":
			m.closed = true
			return false
		}
	}
	text := bytes.TrimSuffix(bytes.TrimSuffix(piece, []byte("\n")), []byte("\r"))
	m.text = append(append(m.text[:0], m.newline...), text...)
	m.newline = string(piece[len(text):])
	if m.err != nil { // no boundary follows
		m.text, m.newline = append(m.text, m.newline...), ""
	}
	m.line = m.text
	return len(m.line) > 0 || m.err == nil
}
