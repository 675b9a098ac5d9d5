package wire

import (
	"encoding/binary"
	"io"
)

// Read reads the next octets of checked frames, for the library. At the end of the
// connection it returns io.EOF, whatever the reason.
func (g *Guard) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if g.err != nil {
		return 0, io.EOF
	}
	for g.left == 0 {
		if err := g.nextFrame(); err != nil {
			return 0, g.fail(err)
		}
	}
	if g.r == g.w {
		if n, err := g.readBody(p); n > 0 || err != nil {
			return n, err
		}
	}
	n := copy(p[:min(len(p), g.left)], g.buf[g.r:g.w])
	g.consume(n)
	g.left -= n
	return n, nil
}

// readBody continues a body chunk whose buffered part is used up. When much of it is
// left, it reads directly into p, else through the buffer, which may then hold the
// next frame too.
func (g *Guard) readBody(p []byte) (int, error) {
	if limit := min(len(p), g.left); limit >= len(g.buf) {
		n, err := g.readConn(p[:limit])
		g.left -= n
		if err != nil {
			return n, g.fail(err)
		}
		return n, nil
	}
	if err := g.fill(1); err != nil {
		return 0, g.fail(err)
	}
	return 0, nil
}

// nextFrame reads up to the next frame that the library is to see. Frames are
// whole in the buffer, except body chunks.
func (g *Guard) nextFrame() error {
	for g.body > 0 {
		if _, err := g.BodyPiece(); err != nil {
			return err
		}
	}
	g.timed = false
	g.payload = nil
	g.shrink()
	if err := g.fill(4); err != nil {
		return err
	}
	length := int(binary.BigEndian.Uint32(g.buf[g.r:]))
	if g.at == atStart && isPolicy(g.buf[g.r:g.w]) {
		return g.turnAway()
	}
	if length == 0 {
		return protocolError("frame of length zero")
	}
	if length > MaxHeaderFrame+1 {
		return protocolError("frame of %d octets is too long", length)
	}
	if err := g.fill(5); err != nil {
		return err
	}
	c := Command(g.buf[g.r+4])
	r, err := checkCommand(c, length-1, g.at)
	if err != nil {
		return err
	}
	if c == Body {
		g.payload, g.newPeer = nil, false
		g.enter(c)
		g.left = 4 + length
		if g.cfg.KeepBodies {
			g.keepBody(length - 1)
		}
		return nil
	}
	return g.takeFrame(c, r, length)
}

// keepBody turns the chunk at the start of the buffer into an empty one, and
// remembers how many octets follow.
func (g *Guard) keepBody(payload int) {
	const command = 1
	binary.BigEndian.PutUint32(g.buf[g.r:], command)
	g.left = 4 + command
	g.body = payload
}

// BodyPiece returns the next octets of the current body chunk if Config.KeepBodies is
// set, and none at its end. The next BodyPiece or Read overwrites them. Octets that
// are never asked for are dropped. An error ends the connection.
func (g *Guard) BodyPiece() ([]byte, error) {
	if g.body == 0 {
		return nil, nil
	}
	if g.r == g.w {
		g.borrowLarge()
		if err := g.fill(1); err != nil {
			return nil, g.fail(err)
		}
	}
	piece := g.buf[g.r : g.r+min(g.body, g.w-g.r)]
	g.consume(len(piece))
	g.body -= len(piece)
	return piece, nil
}

// takeFrame checks a frame's payload, and handles the frame itself or passes it on.
func (g *Guard) takeFrame(c Command, r rule, length int) error {
	large := c == Header && 4+length > readSize
	if large && g.overflows(length-1) {
		g.enter(c)
		return g.swallow(4 + length)
	}
	if err := g.fill(4 + length); err != nil {
		return err
	}
	payload := g.buf[g.r+5 : g.r+4+length]
	if r.shape != nil {
		if err := r.shape(payload); err != nil {
			return err
		}
	}
	switch c {
	case Macro:
		if err := g.macros.set(payload); err != nil {
			return err
		}
		g.consume(4 + length)
		return nil
	case Negotiate:
		var err error
		if g.version, g.offered, err = readOffer(payload); err != nil {
			return err
		}
		g.answered = false
	case Unknown:
		g.consume(4 + length)
		g.unsent = append(g.unsent, goOn...)
		return nil
	case QuitNC:
		g.buf[g.r+4] = byte(Abort) // the library knows no other end of a message
	}
	g.newPeer = c == QuitNC
	g.enter(c)
	if c == Header && !large && g.overflows(len(payload)) {
		return g.swallow(4 + length)
	}
	if c == Header && g.cfg.Header != nil {
		g.cfg.Header(payload)
		g.consume(4 + length)
		g.headerDone()
		return nil
	}
	g.payload = payload
	g.left = 4 + length
	return nil
}

// noHeaderReply is SMFIP_NR_HDR: the MTA waits for no reply to a header field.
const noHeaderReply = 1 << 7

// headerDone replies to a header field that the library does not see, if the MTA waits
// for that.
func (g *Guard) headerDone() {
	if g.agreed.Protocol&noHeaderReply == 0 {
		g.unsent = append(g.unsent, goOn...)
	}
}

// swallow drops n octets of a header field.
func (g *Guard) swallow(n int) error {
	g.left = n // within a frame, for its deadline
	for g.left > 0 {
		if g.r == g.w {
			if err := g.fill(1); err != nil {
				return err
			}
		}
		part := min(g.left, g.w-g.r)
		g.consume(part)
		g.left -= part
	}
	g.headerDone()
	return nil
}

// begin calls the functions for the begin of a session.
func (g *Guard) begin(c Command) {
	call := g.cfg.Negotiated
	if c != Negotiate {
		g.begun, call = true, g.cfg.Begun
	}
	if call != nil {
		call()
	}
}

// enter moves to the phase after a command. The fields of a header that did not end
// count for the next message, because the library frees both together.
func (g *Guard) enter(c Command) {
	was := g.at
	g.at = was.after(c)
	if !g.begun {
		g.begin(c)
	}
	g.macros.enter(c)
	switch c {
	case Mail:
		g.inMail.Store(true)
		if was != atHeader {
			g.newHeader()
		}
	case Abort, QuitNC:
		g.inMail.Store(false)
		g.newHeader()
	}
}
