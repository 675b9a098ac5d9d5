package maillog

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// lookInterval is how often a file is looked at that has been read to its end.
const lookInterval = 250 * time.Millisecond

// Tail reads a file that grows. When another file takes its name, as a log rotation
// makes it, or when it is truncated, the new one is read from its start.
type Tail struct {
	ctx  context.Context
	path string
	file *os.File
}

// OpenTail opens a file, to be read from its start or from its end. Reads wait for
// more until ctx ends; then they return io.EOF.
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
		n, err := t.file.Read(p) // also what was written before the other file came
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

// successor is the file that has taken the name, at its start; nil if none has. A
// file that has become shorter is its own successor.
func (t *Tail) successor() *os.File {
	known, err := t.file.Stat()
	if err != nil {
		return nil
	}
	named, err := os.Stat(t.path)
	if err != nil {
		return nil // between two files
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
