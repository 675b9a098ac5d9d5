package wire

import (
	"io"
	"net"
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

// Config is what a [Guard] needs besides its connection. Zero durations mean
// the defaults.
type Config struct {
	Idle    time.Duration // silence between two frames
	Frame   time.Duration // one frame, from its first octet on
	Write   time.Duration // one write
	Buffers *Buffers      // where the read buffer comes from
	// KeepBodies passes body chunks to the library without their octets, so that it
	// does not copy each of them into a new buffer. [Guard.BodyPiece] returns the
	// octets.
	KeepBodies bool
	// Header, when set, gets the payload of each header field: name NUL value NUL. The
	// library does not see these commands then, because it allocates much for each.
	// The payload must not be kept.
	Header func(payload []byte)
	// Negotiated is called after the MTA's part of the negotiation, and Begun once, at
	// the first command after it. They may be nil.
	Negotiated, Begun func()
	// Closed is called once, by the goroutine that closes the connection, when
	// nothing uses the guard any more.
	Closed func()
}

// Guard is one milter connection. Except for Stop and Kill, only one goroutine may
// use it. A second goroutine may call Progress, see there.
type Guard struct {
	net.Conn
	cfg Config

	pooled *[readSize]byte
	large  *[largeSize]byte // nil unless it is borrowed
	buf    []byte           // pooled[:], large[:], or one for a frame that is larger
	r, w   int              // buf[r:w] is read but not consumed
	left   int              // octets of the current frame that the library may still read
	body   int              // octets of the current body chunk that BodyPiece may still return
	timed  bool             // the current frame has its deadline
	woken  bool             // Stop interrupted a message by mistake, once

	at       phase
	begun    bool   // Config.Begun was called
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
	newPeer  bool // QUIT_NC: the values of CONNECT and HELO no longer apply

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

// Agreed returns what was negotiated: the options that the library asks for and the
// MTA offers.
func (g *Guard) Agreed() Offer { return g.agreed }

// NewPeer reports whether the current ABORT ends a whole SMTP session, which
// another one follows on the same connection.
func (g *Guard) NewPeer() bool { return g.newPeer }

// Payload returns the payload of the current command. It has none for macros and body
// chunks. The next Read overwrites it.
func (g *Guard) Payload() []byte { return g.payload }

// Macros returns the macros that apply to the current command. They change with the
// next Read.
func (g *Guard) Macros() *Macros { return &g.macros }

// Err returns the reason why the guard ended the connection. It is nil if the peer
// ended it between two frames.
func (g *Guard) Err() error { return g.err }

// Fail ends the connection for a reason of the caller: the next Read of the library
// returns io.EOF, and unsent octets are dropped. Only the first reason is kept.
func (g *Guard) Fail(reason error) {
	g.unsent = nil
	g.fail(reason)
}

// fail keeps the reason and returns io.EOF for the library, which logs nothing about
// the normal end of a connection.
func (g *Guard) fail(reason error) error {
	if g.err == nil && reason != io.EOF {
		g.err = reason
	}
	return io.EOF
}

// MessageDone is called when the current message has its final reply. A stopped
// connection ends when that reply is sent.
func (g *Guard) MessageDone() {
	g.inMail.Store(false)
	g.giveBack()
}

// Stop ends the connection now, or after the current message if there is one. It may
// be called from any goroutine.
func (g *Guard) Stop() {
	g.stop.Store(true)
	if !g.inMail.Load() {
		// This wakes a blocked Read, which then sees that the flag is set. A Read
		// that sets its own deadline after this one checks the flag again.
		_ = g.SetReadDeadline(time.Unix(1, 0))
	}
}

// Kill ends the connection from any goroutine, message or not. The goroutine that
// serves it gets an error from its next read or write.
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
		g.returnLarge()
		g.pooled, g.buf, g.payload, g.r, g.w = nil, nil, nil, 0, 0
		if g.cfg.Closed != nil {
			g.cfg.Closed()
		}
	})
	return err
}
