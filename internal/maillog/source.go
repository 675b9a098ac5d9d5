package maillog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxLine bounds a line of a log. A longer line is no record.
const maxLine = 1 << 20

// zipped is the beginning of a file that gzip has compressed (RFC 1952 section 2.3.1).
const zipped = "\x1f\x8b"

// Source reads the records of one log.
type Source struct {
	Name    string
	Records int // records that were found
	Others  int // lines without a record

	lines *bufio.Reader
	close func() error
}

// NewSource returns a source that reads lines. close may be nil.
func NewSource(name string, r io.Reader, close func() error) *Source {
	return &Source{Name: name, lines: bufio.NewReaderSize(r, 64<<10), close: close}
}

// Open opens a file, which may be compressed with gzip.
func Open(name string) (*Source, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	s := NewSource(name, file, file.Close)
	if magic, _ := s.lines.Peek(len(zipped)); !bytes.Equal(magic, []byte(zipped)) {
		return s, nil
	}
	unzipped, err := gzip.NewReader(s.lines)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), file.Close())
	}
	s.lines = bufio.NewReaderSize(unzipped, 64<<10)
	return s, nil
}

// Start returns the beginning of what is read next, without consuming it.
func (s *Source) Start() []byte {
	start, _ := s.lines.Peek(s.lines.Size())
	return start
}

// Close closes what Open has opened.
func (s *Source) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// Next returns the next record, or io.EOF.
func (s *Source) Next() (*Entry, error) {
	for {
		line, err := s.Line()
		if err != nil {
			return nil, err
		}
		if e := Parse(line); e != nil {
			s.Records++
			return e, nil
		}
		if len(bytes.TrimSpace(line)) > 0 {
			s.Others++
		}
	}
}

// Line returns the next line without its line end. For one that is too long it returns an
// empty line, and counts it in Others. The line is valid until the next call.
func (s *Source) Line() ([]byte, error) {
	line, err := s.lines.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return s.longLine(bytes.Clone(line))
	}
	if errors.Is(err, io.EOF) && len(line) > 0 {
		err = nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = s.failed(err)
	}
	return bytes.TrimRight(line, "\r\n"), err
}

func (s *Source) failed(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s: the compressed file is cut short: %w", s.Name, err)
	}
	return fmt.Errorf("%s: %w", s.Name, err)
}

// longLine reads the rest of a line that is longer than the buffer.
func (s *Source) longLine(line []byte) ([]byte, error) {
	tooLong := false
	for {
		part, err := s.lines.ReadSlice('\n')
		if tooLong = tooLong || len(line)+len(part) > maxLine; tooLong {
			line = line[:0]
		} else {
			line = append(line, part...)
		}
		switch {
		case err == nil || errors.Is(err, io.EOF):
			if tooLong {
				s.Others++
			}
			return bytes.TrimRight(line, "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, s.failed(err)
		}
	}
}
