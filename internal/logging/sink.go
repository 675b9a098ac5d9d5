package logging

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// sink is the zapcore.WriteSyncer of a log. It needs no lock: the kernel keeps
// concurrent writes to a file opened for appending apart, and closing an os.File
// waits for a running write.
type sink struct {
	path     string // "" when there is nothing to reopen
	target   atomic.Pointer[target]
	failures atomic.Uint64
	torn     atomic.Bool // the last line may have been cut off in the middle
}

// target is one place to write to. Targets are compared by their pointers.
type target struct {
	w    io.Writer
	file *os.File // w, when the log has to sync and close it
}

func openSink(path string, w io.Writer) (*sink, error) {
	s := &sink{path: path}
	t, err := openTarget(path, w)
	if err != nil {
		return nil, err
	}
	s.target.Store(t)
	return s, nil
}

func openTarget(path string, w io.Writer) (*target, error) {
	if path != "" {
		f, err := openFile(path)
		return &target{w: f, file: f}, err
	}
	if w == nil {
		return &target{w: io.Discard}, nil
	}
	f, ok := w.(*os.File)
	if !ok {
		return &target{w: w}, nil
	}
	// A write to a broken pipe on descriptor 1 or 2 kills a Go program. On any
	// other descriptor it returns an error, which can be counted.
	own, err := duplicate(f)
	return &target{w: own, file: own}, err
}

func duplicate(f *os.File) (*os.File, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	var fd int
	var dupErr error
	err = conn.Control(func(old uintptr) {
		// The new descriptor is above the standard ones, in case one of those is
		// closed.
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3)
	})
	if err := errors.Join(err, dupErr); err != nil {
		return nil, fmt.Errorf("open log: duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Write writes one line, or several. It always reports success, because zap can
// do nothing about a failure.
func (s *sink) Write(line []byte) (int, error) {
	t := s.target.Load()
	err := s.writeTo(t, line)
	for errors.Is(err, os.ErrClosed) {
		// The log was reopened between Load and Write, or it was closed.
		now := s.target.Load()
		if now == t {
			break
		}
		t = now
		err = s.writeTo(t, line)
	}
	if err != nil {
		s.failures.Add(countLines(line))
	}
	return len(line), nil
}

func (s *sink) writeTo(t *target, line []byte) error {
	out := line
	if s.torn.Load() && s.torn.CompareAndSwap(true, false) {
		out = append([]byte{'\n'}, line...)
	}
	n, err := t.w.Write(out)
	if err != nil && !errors.Is(err, os.ErrClosed) && (n > 0 || len(out) > len(line)) {
		s.torn.Store(true)
	}
	return err
}

// Sync is called by zap after lines above the level error. Pipes and terminals
// cannot be synced; that is not an error.
func (s *sink) Sync() error {
	t := s.target.Load()
	if t.file == nil || s.path == "" {
		return nil
	}
	if err := t.file.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("sync log: %w", err)
	}
	return nil
}

func (s *sink) reopen() error {
	if s.path == "" {
		return nil
	}
	f, err := openFile(s.path)
	if err != nil {
		return err
	}
	old := s.target.Swap(&target{w: f, file: f})
	s.torn.Store(false)
	return closeFile(old.file)
}

func (s *sink) close() error {
	return errors.Join(s.Sync(), closeFile(s.target.Load().file))
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}
