package wire

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of [Config].
const (
	// DefaultIdle is how long an MTA may be silent between two frames. It must be
	// longer than any honest silence: Postfix hands us a message only when all of
	// it has come, so a slow upload is silence here, and an SMTP client may sleep
	// five minutes between any two commands.
	DefaultIdle = 2*time.Hour + 10*time.Second
	// DefaultFrame is how long a frame may take from its first octet on, and how
	// long the first frame may take to begin.
	DefaultFrame = time.Minute
	// DefaultWrite is how long the MTA may take to accept our octets.
	DefaultWrite = 30 * time.Second
)

const (
	// maxUnsent bounds what waits to be written; more is sent at once.
	maxUnsent = 64 << 10
	// keepUnsent is the largest write buffer that a connection keeps.
	keepUnsent = 4 << 10
)

// Config is what a [Guard] needs besides its connection. Zero durations stand for
// the defaults.
type Config struct {
	Idle    time.Duration // silence between two frames
	Frame   time.Duration // one frame, from its first octet on
	Write   time.Duration // one write
	Buffers *Buffers      // where the read buffer comes from
	// Closed is called once, by the goroutine that closes the connection, when
	// nothing uses the guard any more.
	Closed func()
}

// Guard is one milter connection. Except for Stop and Kill, only one goroutine
// may use it; Progress may come from a second one, see there.
type Guard struct {
	net.Conn
	cfg Config

	pooled *[readSize]byte
	buf    []byte // pooled[:], or a larger one while a large frame is in it
	r, w   int    // buf[r:w] is read but not consumed
	left   int    // octets of the current frame that the library may still read
	timed  bool   // the current frame has its deadline
	woken  bool   // Stop interrupted a message by mistake, once

	at       phase
	payload  []byte // of the current command, until the next Read
	macros   Macros
	headers  int // of the current message
	hdrBytes int
	lent     int  // of the room for large headers
	noRoom   bool // there was not enough of it for the current message

	version  uint32 // of the protocol that the MTA offered
	offered  Offer
	agreed   Offer
	answered bool // the negotiation has its answer
	newPeer  bool // QUIT_NC: what CONNECT and HELO told is over

	unsent []byte
	err    error

	inMail atomic.Bool
	stop   atomic.Bool
	killed atomic.Bool
	once   sync.Once
}

var _ net.Conn = (*Guard)(nil)

// New guards conn.
func New(conn net.Conn, cfg Config) *Guard {
	if cfg.Idle <= 0 {
		cfg.Idle = DefaultIdle
	}
	if cfg.Frame <= 0 {
		cfg.Frame = DefaultFrame
	}
	if cfg.Write <= 0 {
		cfg.Write = DefaultWrite
	}
	if cfg.Buffers == nil {
		cfg.Buffers = new(Buffers)
	}
	g := &Guard{Conn: conn, cfg: cfg, pooled: cfg.Buffers.get()}
	g.buf = g.pooled[:]
	return g
}

// Version returns the protocol version that the MTA offered.
func (g *Guard) Version() uint32 { return g.version }

// Agreed returns what was negotiated: of what the library asks for, what the MTA
// offers.
func (g *Guard) Agreed() Offer { return g.agreed }

// NewPeer reports whether the current ABORT ends a whole SMTP session, which
// another one follows on the same connection.
func (g *Guard) NewPeer() bool { return g.newPeer }

// Payload gives the payload of the current command, macros and body chunks
// excepted. It is overwritten by the next Read.
func (g *Guard) Payload() []byte { return g.payload }

// Macros gives the macros that hold at the current command. They change with the
// next Read.
func (g *Guard) Macros() *Macros { return &g.macros }

// HeaderOverflow tells that header fields of the current message were swallowed,
// because there were more than [MaxHeaders] or [MaxHeaderBytes].
func (g *Guard) HeaderOverflow() bool {
	return g.headers > MaxHeaders || g.hdrBytes > MaxHeaderBytes
}

// HeaderNoRoom reports whether header fields of the current message were
// swallowed because too many messages with large headers are under way.
func (g *Guard) HeaderNoRoom() bool { return g.noRoom }

// Err gives the reason why the guard ended the connection, or nil if the peer
// did, between two frames.
func (g *Guard) Err() error { return g.err }

// Fail ends the connection for a reason of the caller's own: the library gets
// io.EOF from its next Read, and nothing unsent is sent. The first reason counts.
func (g *Guard) Fail(reason error) {
	g.unsent = nil
	g.fail(reason)
}

// fail keeps the reason and gives what the library shall see: the plain end of
// the connection, about which it logs nothing.
func (g *Guard) fail(reason error) error {
	if g.err == nil && reason != io.EOF {
		g.err = reason
	}
	return io.EOF
}

// MessageDone tells that the current message has its final reply. A connection
// that was stopped ends when that reply is sent.
func (g *Guard) MessageDone() {
	g.inMail.Store(false)
	g.giveBack()
}

// giveBack returns the room for a large header.
func (g *Guard) giveBack() {
	g.cfg.Buffers.giveBack(g.lent)
	g.lent = 0
}

// newHeader begins to count anew.
func (g *Guard) newHeader() {
	g.headers, g.hdrBytes, g.noRoom = 0, 0, false
	g.giveBack()
}

// Stop ends the connection as soon as no message is under way: now, or after the
// current one. It may be called from any goroutine.
func (g *Guard) Stop() {
	g.stop.Store(true)
	if !g.inMail.Load() {
		// Wakes a blocked Read, which then finds the flag set. If it sets its own
		// deadline after this one, it looks at the flag once more.
		_ = g.SetReadDeadline(time.Unix(1, 0))
	}
}

// Kill ends the connection from any goroutine, message or not. The goroutine that
// serves it finds out at its next read or write.
func (g *Guard) Kill() {
	g.killed.Store(true)
	_ = g.Conn.Close()
}

func (g *Guard) stopped() bool { return g.stop.Load() && !g.inMail.Load() }

// Close sends what is unsent, closes the connection and calls Config.Closed. Only
// the goroutine that reads may call it.
func (g *Guard) Close() error {
	var err error
	g.once.Do(func() {
		_ = g.Flush()
		err = g.Conn.Close()
		g.giveBack()
		g.cfg.Buffers.put(g.pooled)
		g.pooled, g.buf, g.payload, g.r, g.w = nil, nil, nil, 0, 0
		if g.cfg.Closed != nil {
			g.cfg.Closed()
		}
	})
	return err
}

// Read gives the library the next octets of frames that have been checked. The
// end of the connection is io.EOF, whatever the reason.
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

// readBody continues a body chunk whose buffered part is used up: directly into p
// when much is left, else through the buffer, which may get the next frame too.
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
		return nil
	}
	return g.takeFrame(c, r, length)
}

// takeFrame checks a frame's payload and either keeps the frame to itself or
// hands it on.
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
		g.macros.set(payload)
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
	g.payload = payload
	g.left = 4 + length
	return nil
}

// noHeaderReply is SMFIP_NR_HDR: the MTA waits for no reply to a header field.
const noHeaderReply = 1 << 7

// swallow reads n octets of a header field past the buffer, and answers for it
// if the MTA waits.
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
	if g.agreed.Protocol&noHeaderReply == 0 {
		g.unsent = append(g.unsent, goOn...)
	}
	return nil
}

// enter follows the protocol to the next phase. A header that was begun and not
// ended counts for the next message: the library frees it with that one's.
func (g *Guard) enter(c Command) {
	was := g.at
	g.at = was.after(c)
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

// overflows counts a header field and reports whether it is to be swallowed.
func (g *Guard) overflows(n int) bool {
	g.headers = min(g.headers+1, MaxHeaders+1)
	g.hdrBytes = min(g.hdrBytes+n, MaxHeaderBytes+1)
	if g.HeaderOverflow() {
		return true
	}
	if kept := g.hdrBytes + fieldCost*g.headers; kept > freeHeader && !g.noRoom {
		more := kept - freeHeader - g.lent
		if g.noRoom = !g.cfg.Buffers.lend(more); !g.noRoom {
			g.lent += more
		}
	}
	return g.noRoom
}

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

// makeRoom moves what is buffered to the front. A buffer that is full doubles
// towards n octets: a length that was only claimed costs little.
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
	}
}

// readConn is the only place that waits for the peer: what is unsent leaves
// first, then the deadline is set.
func (g *Guard) readConn(p []byte) (int, error) {
	inFrame := g.left > 0 || g.r < g.w
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
		// Stop saw no message when it woke us, but one began before it did.
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

// readProblem says what the end of reading means.
func (g *Guard) readProblem(err error, inFrame bool) error {
	switch {
	case g.killed.Load():
		return ErrCut
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
