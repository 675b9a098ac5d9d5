package wiretest

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// Listen serves a unix socket until the test ends and returns its path. serve owns
// each connection. Its context ends with the test, which waits for serve to return.
// The listener has no bounds and no back-off; for those see package daemon.
func Listen(tb testing.TB, serve func(ctx context.Context, conn net.Conn)) (path string) {
	tb.Helper()
	path = filepath.Join(tb.TempDir(), "milter")
	ln, err := net.Listen("unix", path)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serve(ctx, conn) })
		}
	})
	tb.Cleanup(func() {
		_ = ln.Close()
		cancel()
		running.Wait()
	})
	return path
}
