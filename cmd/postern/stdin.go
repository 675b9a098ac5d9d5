package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/maillog"
)

// stdin returns the standard input. A read that waits for more ends when ctx does, as
// after Ctrl-C.
func stdin(ctx context.Context) io.Reader { return waitingReader{ctx, os.Stdin} }

type waitingReader struct {
	ctx  context.Context
	file *os.File
}

// stdinLook is how often a read that waits looks whether it is to end.
const stdinLook = 100 * time.Millisecond

// Read implements io.Reader.
func (r waitingReader) Read(p []byte) (int, error) {
	ready := []unix.PollFd{{Fd: int32(r.file.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(ready, int(stdinLook.Milliseconds()))
		switch {
		case r.ctx.Err() != nil:
			return 0, context.Cause(r.ctx)
		case n > 0 || err != nil && !errors.Is(err, unix.EINTR):
			return r.file.Read(p)
		}
	}
}

// openRecords opens a log. "-" is the standard input.
func openRecords(ctx context.Context) func(name string) (*maillog.Source, error) {
	return func(name string) (*maillog.Source, error) {
		if name == "-" {
			return maillog.NewSource("standard input", stdin(ctx), nil), nil
		}
		return maillog.Open(name)
	}
}
