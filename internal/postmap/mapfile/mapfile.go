// Package mapfile reads the logical lines of Postfix's table files.
//
// All table files have the same line format. A line that begins with white space
// continues the one before it. Empty lines, and lines whose first visible character is
// "#", are skipped, even inside a continued line.
//
// Invariants: reading is bounded in file size and in the length of a logical
// line; only regular files are opened, so that a pipe cannot block a daemon; every
// error names path:line and the fix.
package mapfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Bounds of one table file.
const (
	MaxFileSize = 64 << 20 // octets
	MaxLine     = 1 << 20  // octets of one logical line
	readBuffer  = 64 << 10
)

// Error is an error in a table file. Line 0 means the file as a whole.
type Error struct {
	Path string
	Line int
	What string
	Fix  string // how the operator fixes it; may be empty
	Err  error  // the cause, if there is one below this package
}

// Error returns "path:line: what; fix".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(Where(e.Path, e.Line))
	b.WriteString(": ")
	b.WriteString(e.What)
	if e.Fix != "" {
		b.WriteString("; ")
		b.WriteString(e.Fix)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Where returns the place in a file as "path:line", or the path alone for line 0.
func Where(path string, line int) string {
	if line == 0 {
		return path
	}
	var number [20]byte // longer than any
	return path + ":" + string(strconv.AppendInt(number[:0], int64(line), 10))
}

// File is an open table file.
type File struct {
	Path string
	Info fs.FileInfo
	file *os.File
}

// Open opens a regular file within the bounds. The error is an [*Error].
func Open(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, openError(path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{Path: path, What: "is no regular file", Fix: "name the text file of the table"}
	}
	if info.Size() > MaxFileSize {
		return nil, &Error{Path: path, What: fmt.Sprintf("is larger than %d MiB", MaxFileSize>>20), Fix: "split the table or keep it in a database"}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, openError(path, err)
	}
	return &File{Path: path, Info: info, file: file}, nil
}

func openError(path string, err error) error {
	e := &Error{Path: path, What: err.Error(), Err: err}
	if pathError := (*fs.PathError)(nil); errors.As(err, &pathError) {
		e.What = pathError.Err.Error()
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.Fix = "let the daemon's user or one of its groups read it (Postfix's table files usually belong to group postfix)"
	case strings.Contains(path, "$"):
		e.Fix = "write the path out: Postfix's parameters are not expanded here (postconf -x shows their values)"
	}
	return e
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

// Lines reads the file from its beginning.
func (f *File) Lines() (*Scanner, error) {
	if _, err := f.file.Seek(0, io.SeekStart); err != nil {
		return nil, openError(f.Path, err)
	}
	return NewScanner(f.Path, f.file), nil
}

// Line is one logical line: its text without the line ends, and the number of
// the first physical line that has some of the text.
type Line struct {
	Number int
	Text   []byte // valid until the next call of Next
}

// Scanner reads logical lines.
type Scanner struct {
	path   string
	in     *bufio.Reader
	number int // of the physical line read last
	read   int // octets so far
	buf    []byte
}

// NewScanner reads logical lines from in; path is for the errors only.
func NewScanner(path string, in io.Reader) *Scanner {
	return &Scanner{path: path, in: bufio.NewReaderSize(in, readBuffer)}
}

// Next returns the next logical line, io.EOF after the last, or an [*Error]. A
// continuation without a line before it is an error, and so is a NUL.
func (s *Scanner) Next() (Line, error) {
	s.buf = s.buf[:0]
	first, eof := 0, false
	for !eof {
		start := len(s.buf)
		var err error
		if eof, err = s.physical(); err != nil {
			return Line{}, err
		}
		if start == 0 {
			first = s.number
		}
		if isSkipped(s.buf[start:]) {
			s.buf = s.buf[:start]
		}
		if len(s.buf) > 0 && !s.continues() {
			break
		}
	}
	if len(s.buf) == 0 {
		return Line{}, io.EOF
	}
	return Line{Number: first, Text: s.buf}, s.checkLine(first)
}

func (s *Scanner) checkLine(line int) error {
	if IsSpace(s.buf[0]) {
		return &Error{Path: s.path, Line: line, What: "begins with white space but continues no line before it", Fix: "remove the white space"}
	}
	for _, c := range s.buf {
		if c == 0 {
			return &Error{Path: s.path, Line: line, What: "contains a NUL", Fix: "name the text of the table, not a compiled file"}
		}
	}
	return nil
}

// physical appends one physical line to the buffer, without its line feed.
func (s *Scanner) physical() (eof bool, err error) {
	start := s.read
	for {
		chunk, err := s.in.ReadSlice('\n')
		s.read += len(chunk)
		if len(s.buf)+len(chunk) > MaxLine || s.read > MaxFileSize {
			return true, &Error{Path: s.path, Line: s.number + 1, What: "line or file is too long", Fix: fmt.Sprintf("a line may have %d KiB, a file %d MiB", MaxLine>>10, MaxFileSize>>20)}
		}
		s.buf = append(s.buf, chunk...)
		switch {
		case err == nil:
			s.number++
			s.buf = s.buf[:len(s.buf)-1]
			return false, nil
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			if s.read > start {
				s.number++
			}
			return true, nil
		default:
			return true, &Error{Path: s.path, Line: s.number + 1, What: "read: " + err.Error(), Err: err}
		}
	}
}

// continues reports whether the next physical line belongs to this logical line. It
// does for a comment or an empty line, which adds nothing.
func (s *Scanner) continues() bool {
	next, err := s.in.Peek(1)
	return err == nil && (next[0] == '#' || IsSpace(next[0]))
}

func isSkipped(line []byte) bool {
	for _, c := range line {
		if !IsSpace(c) {
			return c == '#'
		}
	}
	return true
}

// IsSpace reports whether c is white space in Postfix's table formats, as in C.
func IsSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// Space is the same set for the functions of package strings.
const Space = " \t\n\v\f\r"
