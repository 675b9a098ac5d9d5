package reportread

import (
	"bufio"
	"errors"
)

// lines is a stream that is read line by line. A line that does not fit into the buffer
// comes in pieces.
type lines struct {
	in     *bufio.Reader
	err    error // why there is no further piece
	middle bool  // the last piece was not the end of its line
}

// piece returns a line with its end, or as much of it as fits, and reports whether the line
// begins with it. It is valid until the next call. The last one of a stream may be empty.
func (l *lines) piece() (piece []byte, begins bool) {
	begins = !l.middle
	piece, err := l.in.ReadSlice('\n')
	l.middle = errors.Is(err, bufio.ErrBufferFull)
	if err != nil && !l.middle {
		l.err = err
	}
	return piece, begins
}
