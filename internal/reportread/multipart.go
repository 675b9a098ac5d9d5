package reportread

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
)

// multipart reads the parts of a mail: next moves to a part, and Read reads it (RFC 2046
// section 5.1). Unlike mime/multipart it does not look at the headers of parts, so that a
// faulty one does not hide the parts after it.
type multipart struct {
	in       *bufio.Reader
	mark     []byte // "--" and the boundary
	err      error  // why there are no more lines
	text     []byte // the last line, or the last piece of a long one
	line     []byte // the rest of it
	newline  string // the end of the last line. Before a boundary it is not part of the text
	middle   bool   // the stream is in the middle of a line
	boundary bool   // the line that begins the next part was read
}

func newMultipart(in io.Reader, boundary string) *multipart {
	mark := "--" + strings.TrimRight(boundary, " \t")
	return &multipart{in: bufio.NewReaderSize(in, 4096+len(mark)), mark: []byte(mark)}
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
	if errors.Is(m.err, io.EOF) || errors.Is(m.err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("mail: %w", m.err)
}

// Read reads the part that next has moved to.
func (m *multipart) Read(p []byte) (int, error) {
	for len(m.line) == 0 {
		if !m.advance() {
			return 0, cmp.Or(m.err, io.EOF)
		}
	}
	n := copy(p, m.line)
	m.line = m.line[n:]
	return n, nil
}

// advance reads the next line of the part, or a piece of a long one. It reports whether
// there is one.
func (m *multipart) advance() bool {
	m.line = nil
	if m.err != nil || m.boundary {
		return false
	}
	piece, err := m.in.ReadSlice('\n')
	begins := !m.middle
	m.middle = errors.Is(err, bufio.ErrBufferFull)
	if begins && !m.middle {
		switch rest, isMark := bytes.CutPrefix(bytes.TrimRight(piece, " \t\r\n"), m.mark); {
		case isMark && len(rest) == 0:
			m.boundary = true
			return false
		case isMark && string(rest) == "--":
			m.err = io.EOF
			return false
		}
	}
	text := bytes.TrimSuffix(bytes.TrimSuffix(piece, []byte("\n")), []byte("\r"))
	m.text = append(append(m.text[:0], m.newline...), text...)
	m.newline = string(piece[len(text):])
	if err != nil && !m.middle {
		m.text, m.newline = append(m.text, m.newline...), ""
		if m.err = err; errors.Is(err, io.EOF) {
			m.err = io.ErrUnexpectedEOF // before the last boundary
		}
	}
	m.line = m.text
	return len(m.line) > 0 || m.err == nil
}
