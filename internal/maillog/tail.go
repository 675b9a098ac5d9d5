package maillog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// lookInterval is how often a file is checked after it was read to its end.
const lookInterval = 250 * time.Millisecond

// Tail reads a file that grows. When a log rotation replaces the file by a new one, or
// truncates it, Tail reads the new file from its start. A line that the old file has only
// the beginning of ends there.
type Tail struct {
	ctx    context.Context
	path   string
	file   *os.File
	inLine bool // the last octet that was read is not a line end
}

// OpenTail opens a file for reading from its start or from its end. At the end of the
// file, reads wait for more until ctx ends, and then return io.EOF.
func OpenTail(ctx context.Context, path string, atEnd bool) (*Tail, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	err = canGrow(file)
	if err == nil && atEnd {
		_, err = file.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Tail{ctx: ctx, path: path, file: file}, nil
}

// canGrow returns an error for a folder and for a compressed file.
func canGrow(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	var start [len(zipped)]byte
	switch n, _ := file.ReadAt(start[:], 0); {
	case info.IsDir():
		return fmt.Errorf("%s is a folder; name a file in it", file.Name())
	case string(start[:n]) == zipped:
		return fmt.Errorf("%s is compressed, so nothing is added to it; name the file that is written now", file.Name())
	}
	return nil
}

// Read implements io.Reader.
func (t *Tail) Read(p []byte) (int, error) {
	for {
		next := t.successor()
		n, err := t.file.Read(p) // also reads what was written before the file was replaced
		if n > 0 || err != nil && !errors.Is(err, io.EOF) {
			if next != nil {
				_ = next.Close()
			}
			t.inLine = n > 0 && p[n-1] != '\n'
			return n, err
		}
		if next != nil {
			_ = t.file.Close()
			t.file = next
			if t.inLine && len(p) > 0 {
				t.inLine = false
				return copy(p, "\n"), nil
			}
			continue
		}
		select {
		case <-t.ctx.Done():
			return 0, io.EOF
		case <-time.After(lookInterval):
		}
	}
}

// successor returns the file that has replaced this one, at its start, or nil if there is
// none. A file that has become shorter is its own successor.
func (t *Tail) successor() *os.File {
	known, err := t.file.Stat()
	if err != nil {
		return nil
	}
	named, err := os.Stat(t.path)
	if err != nil {
		return nil // the old file is renamed and the new one not yet created
	}
	if os.SameFile(known, named) {
		at, err := t.file.Seek(0, io.SeekCurrent)
		if err != nil || at <= named.Size() {
			return nil
		}
	}
	next, err := os.Open(t.path)
	if err != nil {
		return nil
	}
	return next
}

// Close implements io.Closer.
func (t *Tail) Close() error { return t.file.Close() }
