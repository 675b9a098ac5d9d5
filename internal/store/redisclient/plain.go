package redisclient

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"
)

// errNoAnswer marks the error of a connection without TLS that the server has ended before
// it sent anything. A server that expects TLS does this. So does one that is just stopping.
var errNoAnswer = errors.New("the server has ended the connection without an answer")

// plainConn is a connection without TLS. It is a syscall.Conn, as go-redis needs it to see
// whether an idle connection has ended.
type plainConn struct {
	*net.TCPConn
	answered atomic.Bool
}

// newPlainConn watches for the first answer. Connections to a path stay as they are: they
// have no TLS.
func newPlainConn(conn net.Conn) net.Conn {
	if tcp, ok := conn.(*net.TCPConn); ok {
		return &plainConn{TCPConn: tcp}
	}
	return conn
}

// Read implements net.Conn.
func (c *plainConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if n > 0 {
		c.answered.Store(true)
	}
	if (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) && !c.answered.Load() {
		err = fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	return n, err
}
