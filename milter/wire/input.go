package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

func (g *Guard) consume(n int) {
	g.r += n
	if g.r == g.w {
		g.r, g.w = 0, 0
	}
}

// fill reads until n octets are buffered.
func (g *Guard) fill(n int) error {
	for g.w-g.r < n {
		if g.w == len(g.buf) || len(g.buf)-g.r < n {
			g.makeRoom(n)
		}
		got, err := g.readConn(g.buf[g.w:])
		g.w += got
		if err != nil && g.w-g.r < n {
			return err
		}
	}
	return nil
}

// makeRoom moves the buffered octets to the front. A full buffer doubles its size, up
// to n octets. It does not grow to n at once, because a peer may claim a length
// without sending the octets.
func (g *Guard) makeRoom(n int) {
	to := g.buf
	if g.w-g.r == len(g.buf) {
		to = make([]byte, min(n, 2*len(g.buf)))
	}
	g.w = copy(to, g.buf[g.r:g.w])
	g.r = 0
	g.buf = to
}

// shrink gives a large buffer back after the large frame.
func (g *Guard) shrink() {
	if len(g.buf) > readSize && g.w-g.r <= readSize {
		g.w = copy(g.pooled[:], g.buf[g.r:g.w])
		g.r = 0
		g.buf = g.pooled[:]
		g.returnLarge()
	}
}

// borrowLarge replaces an empty buffer by a large one if much of a body chunk follows.
func (g *Guard) borrowLarge() {
	if g.body <= readSize || len(g.buf) > readSize {
		return
	}
	if g.large = g.cfg.Buffers.getLarge(); g.large != nil {
		g.buf = g.large[:]
	}
}

func (g *Guard) returnLarge() {
	if g.large != nil {
		g.cfg.Buffers.putLarge(g.large)
		g.large = nil
	}
}

// readConn is the only place that waits for the peer. It sends the unsent octets
// first, then sets the deadline.
func (g *Guard) readConn(p []byte) (int, error) {
	inFrame := g.left > 0 || g.body > 0 || g.r < g.w
	if err := g.Flush(); err != nil {
		return 0, err
	}
	if g.stopped() {
		return 0, ErrStopped
	}
	if err := g.setReadTimer(inFrame); err != nil {
		return 0, g.readProblem(err, inFrame)
	}
	if g.stopped() {
		return 0, ErrStopped
	}
	n, err := g.Conn.Read(p)
	if n > 0 {
		return n, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && g.stop.Load() && g.inMail.Load() && !g.woken {
		// Stop saw no message and woke us, but a message had begun before that.
		g.woken, g.timed = true, false
		return 0, nil
	}
	return 0, g.readProblem(err, inFrame)
}

func (g *Guard) setReadTimer(inFrame bool) error {
	if g.timed && inFrame {
		return nil
	}
	wait := g.cfg.Idle
	if inFrame || g.at == atStart {
		wait = g.cfg.Frame
	}
	g.timed = inFrame
	return g.SetReadDeadline(time.Now().Add(wait))
}

// readProblem returns the error that describes why reading ended.
func (g *Guard) readProblem(err error, inFrame bool) error {
	switch {
	case g.killed.Load():
		return ErrCut
	case errors.Is(err, net.ErrClosed): // by its owner, which reports that
		return io.EOF
	case errors.Is(err, os.ErrDeadlineExceeded) && g.stopped():
		return ErrStopped
	case errors.Is(err, os.ErrDeadlineExceeded) && inFrame:
		return ErrStalled
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrIdle
	case inFrame:
		return ErrTruncated
	}
	return io.EOF
}
