package wire

import (
	"encoding/binary"
	"errors"
	"os"
	"time"
)

const (
	// maxUnsent is how many octets may wait to be written; beyond it they are sent at
	// once.
	maxUnsent = 64 << 10
	// keepUnsent is the largest write buffer that a connection keeps.
	keepUnsent = 4 << 10
)

// Write keeps octets until the guard waits for the peer again. It fails after the
// guard has ended the connection.
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

// Send is Write for one frame, whose payload is several texts.
func (g *Guard) Send(code byte, payload ...string) error {
	if g.err != nil {
		return g.err
	}
	length := 1
	for _, text := range payload {
		length += len(text)
	}
	g.unsent = append(binary.BigEndian.AppendUint32(g.unsent, uint32(length)), code)
	for _, text := range payload {
		g.unsent = append(g.unsent, text...)
	}
	if len(g.unsent) < maxUnsent {
		return nil
	}
	return g.Flush()
}

// answerOffer reduces the answer to the negotiation to the offer, once the answer is
// complete. Nothing is written before it.
func (g *Guard) answerOffer() {
	if g.answered || len(g.unsent) < 4 || len(g.unsent) < 4+int(binary.BigEndian.Uint32(g.unsent)) {
		return
	}
	g.unsent, g.agreed = agree(g.unsent, g.offered)
	g.answered = true
}

// Flush sends the unsent octets.
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
	goOn     = "\x00\x00\x00\x01c" // lets the MTA continue
)

// Progress asks the MTA to keep waiting for the reply to the current command. A
// second goroutine may call it while the one that serves the connection is busy and
// has nothing unsent. It does nothing if modifications are unsent, because the MTA
// accepts no progress packet after them.
func (g *Guard) Progress() error {
	if len(g.unsent) > 0 {
		return nil
	}
	return g.writeConn([]byte(progress))
}
