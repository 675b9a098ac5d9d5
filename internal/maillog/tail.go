package maillog

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// lookInterval is how often a file is checked after it was read to its end.
const lookInterval = 250 * time.Millisecond

// Tail reads a file that grows. When a log rotation replaces the file by a new one, or
// truncates it, Tail reads the new file from its start.
type Tail struct {
	ctx  context.Context
	path string
	file *os.File
}

// OpenTail opens a file for reading from its start or from its end. At the end of the
// file, reads wait for more until ctx ends, and then return io.EOF.
func OpenTail(ctx context.Context, path string, atEnd bool) (*Tail, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if atEnd {
		if _, err := file.Seek(0, io.SeekEnd); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	return &Tail{ctx, path, file}, nil
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
			return n, err
		}
		if next != nil {
			_ = t.file.Close()
			t.file = next
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
