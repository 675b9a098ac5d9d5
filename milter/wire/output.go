package wire

import (
	"encoding/binary"
	"errors"
	"os"
	"time"
)

const (
	// maxUnsent bounds what waits to be written; more is sent at once.
	maxUnsent = 64 << 10
	// keepUnsent is the largest write buffer that a connection keeps.
	keepUnsent = 4 << 10
)

// Write keeps octets until the guard waits for the peer again. After the end of
// the connection for a reason of ours it fails.
func (g *Guard) Write(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	g.unsent = append(g.unsent, p...)
	g.answerOffer()
	if len(g.unsent) < maxUnsent {
		return len(p), nil
	}
	return len(p), g.Flush()
}

// answerOffer cuts the answer to the negotiation down to the offer when the whole
// of it is there. It is the first thing that is written.
func (g *Guard) answerOffer() {
	if g.answered || len(g.unsent) < 4 || len(g.unsent) < 4+int(binary.BigEndian.Uint32(g.unsent)) {
		return
	}
	g.unsent, g.agreed = agree(g.unsent, g.offered)
	g.answered = true
}

// Flush sends what is unsent.
func (g *Guard) Flush() error {
	if len(g.unsent) == 0 {
		return nil
	}
	err := g.writeConn(g.unsent)
	if err != nil || cap(g.unsent) > keepUnsent {
		g.unsent = nil
		return err
	}
	g.unsent = g.unsent[:0]
	return nil
}

func (g *Guard) writeConn(p []byte) error {
	if err := g.SetWriteDeadline(time.Now().Add(g.cfg.Write)); err != nil {
		return err
	}
	_, err := g.Conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrStalled
	}
	return err
}

// Frames that the guard sends by itself.
const (
	progress = "\x00\x00\x00\x01p" // asks the MTA for more time (SMFIR_PROGRESS)
	goOn     = "\x00\x00\x00\x01c" // answers a command about which we have nothing to say
)

// Progress asks the MTA to keep waiting for the reply to the current command. A
// second goroutine may call it while the one that serves the connection is busy
// elsewhere and has nothing unsent; with modifications unsent it does nothing,
// since the MTA takes no progress after them.
func (g *Guard) Progress() error {
	if len(g.unsent) > 0 {
		return nil
	}
	return g.writeConn([]byte(progress))
}
