package reportread

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
)

// mbox reads the mails of a mailbox: next moves to a mail, and Read reads it. A mail ends
// before a line that begins with "From " and follows an empty line.
type mbox struct {
	lines
	line  []byte // the rest of the piece that was read last
	blank bool   // the last line was empty
	ended bool   // the line that begins the next mail was read
}

var separator = []byte("From ")

func newMbox(in *buffered) *mbox { return &mbox{lines: lines{in: in}, blank: true} }

// next skips the rest of the mail and reports whether there is another one.
func (m *mbox) next() bool {
	for m.advance() {
		continue
	}
	m.line = nil
	if !m.ended {
		return false
	}
	m.ended, m.blank = false, false
	return true
}

// failed returns why the mailbox could not be read to its end, or nil.
func (m *mbox) failed() error {
	if m.err == nil || errors.Is(m.err, io.EOF) {
		return nil
	}
	return fmt.Errorf("mailbox: %w", m.err)
}

// Read reads the mail that next has moved to.
func (m *mbox) Read(p []byte) (int, error) {
	if len(m.line) == 0 && !m.advance() {
		return 0, cmp.Or(m.err, io.EOF)
	}
	n := copy(p, m.line)
	m.line = m.line[n:]
	return n, nil
}

// advance reads the next line of the mail, or a piece of a long one. It reports
// whether there is one.
func (m *mbox) advance() bool {
	if m.err != nil || m.ended {
		return false
	}
	piece, begins := m.piece()
	if begins && m.blank && bytes.HasPrefix(piece, separator) {
		for m.middle {
			m.piece()
		}
		m.ended = true
		return false
	}
	m.blank = begins && len(bytes.TrimRight(piece, "\r\n")) == 0
	m.line = piece
	return len(piece) > 0
}
