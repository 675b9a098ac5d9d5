// Package milter answers an MTA that asks about its mail: it speaks the milter
// protocol, hands each message to the handler of its role, and spells the answer.
//
// Postfix opens one milter connection for each SMTP session. It tells the client
// (CONNECT) once, HELO again after STARTTLS, then for each message MAIL, RCPT,
// header fields, body chunks and the end, where modifications and the final reply
// are expected; ABORT ends a message early. The protocol itself is spoken by
// github.com/emersion/go-milter; package wire guards what it reads.
//
// The files follow the data: server (one connection), session (the protocol's
// callbacks), message (typed values), decision (what a handler says), action
// (replies and modifications, spelled), report (one record, one count).
//
// Invariants:
//   - what CONNECT and HELO told holds for every message of the session, what MAIL
//     told for one;
//   - every message that gets a final reply leaves one record, every connection
//     that we end leaves one too;
//   - modifications and the final reply leave in one write;
//   - a handler that fails or panics never goes unnoticed: the configured rule is
//     applied, or the one connection ends;
//   - a connection that the MTA still holds is not closed while the server
//     drains: Postfix would answer 451 to the next MAIL of its SMTP session.
package milter

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	library "github.com/emersion/go-milter"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/wire"
)

// Defaults of [Settings] and [Options].
const (
	// DefaultFinishTimeout is far below the 300 s that Postfix waits at the end of
	// a message, and below what SMTP clients wait for the reply to their data.
	DefaultFinishTimeout = 30 * time.Second
	// DefaultCommandTimeout is below the 30 s that Postfix waits after RCPT.
	DefaultCommandTimeout = 20 * time.Second
	// DefaultDrainTimeout is how long sessions are left alone by default.
	DefaultDrainTimeout = 5 * time.Minute
)

// Listen is what a listener tells about its mail.
type Listen uint8

// Kinds of listeners.
const (
	BySession  Listen = iota // each message by its session, see [Settings]
	SignOnly                 // everything is ours
	VerifyOnly               // nothing is ours
)

// Source gives each message its settings.
type Source interface {
	// Pin returns the settings for a message that begins now. What they hold
	// stays usable until release is called, once, when the message is over.
	Pin() (s *Settings, release func())
}

// Settings hold for a message from its MAIL on.
type Settings struct {
	Sign   Handler // nil: mail of this role passes untouched
	Verify Handler

	// From is asked about the header of authenticated mail of both roles; may be nil.
	From *FromCheck

	// Originating lists the {daemon_name}s whose mail is ours, ignoring case;
	// InternalNetworks the clients. They decide on BySession listeners, beside the
	// client's login.
	Originating      []string
	InternalNetworks []netip.Prefix

	// DeferOnError answers 451 when a handler failed; else the message passes
	// without modification. The record shows the error either way.
	DeferOnError bool

	FinishTimeout  time.Duration // for all work at the end of a message; 0 is the default
	CommandTimeout time.Duration // for a recipient or a header; 0 is the default
}

// Pin implements [Source] for settings that never change.
func (s Settings) Pin() (*Settings, func()) { return &s, func() {} }

func (s *Settings) finishTimeout() time.Duration {
	return cmp.Or(max(s.FinishTimeout, 0), DefaultFinishTimeout)
}

func (s *Settings) commandTimeout() time.Duration {
	return cmp.Or(max(s.CommandTimeout, 0), DefaultCommandTimeout)
}

// Options hold for the server's whole life.
type Options struct {
	Log     *zap.Logger // panics; nil drops them
	Records record.Sink // nil drops them
	// Limited, when set, is called for each SMTP session of an MTA that offers less
	// of the protocol than we ask for, with the version that it speaks.
	Limited func(version uint32)
	// Count, when set, is called for each message whose header has come, with the row
	// that says whose mail it is, and whether it has fields of DKIM2.
	Count func(whose Whose, dkim2 bool)
	// DrainTimeout is how long sessions go on when draining has begun. After it,
	// they end as soon as no message is under way.
	DrainTimeout time.Duration // 0 is the default

	// Deadlines of a connection, see [wire.Config]; 0 is the default.
	IdleTimeout, FrameTimeout, WriteTimeout time.Duration
}

// Server serves milter connections. It is made by [New].
type Server struct {
	opts     Options
	settings Source
	report   reporter
	limits   limitReport
	buffers  wire.Buffers
	macros   map[library.Stage][]string
}

// New makes a server whose messages get their settings from a source.
func New(o Options, s Source) *Server {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Records == nil {
		o.Records = record.Sinks{}
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	server := &Server{opts: o, settings: s, report: reporter{o.Records}, macros: macroList()}
	server.limits.log, server.limits.count = o.Log, o.Limited
	return server
}

// What the milter may do, and what it leaves out of the protocol. No reply is sent
// where none could say anything: each one is a round trip. Body chunks could be
// skipped if they had replies; most bodies are one chunk, so that this would cost
// more than it saves.
const (
	actions = library.OptAddHeader | library.OptChangeHeader | library.OptQuarantine |
		library.OptSetSymList
	protocol = library.OptHeaderLeadingSpace | library.OptNoUnknown |
		library.OptNoConnReply | library.OptNoHeloReply |
		library.OptNoHeaderReply | library.OptNoBodyReply
)

// macroList is what the MTA shall tell at each stage. It is asked for, because an
// administrator's own list easily loses what roles depend on, and complete,
// because a stage left out may get nothing.
func macroList() map[library.Stage][]string {
	queueID := []string{"i"}
	return map[library.Stage][]string{
		library.StageConnect:  {"j", "{daemon_name}", "{client_addr}", "{client_ptr}"},
		library.StageHelo:     {"{tls_version}"},
		library.StageMailFrom: {"i", "{auth_type}", "{auth_authen}"},
		library.StageRcptTo:   queueID,
		library.StageData:     queueID,
		library.StageEOH:      queueID,
		library.StageEOM:      queueID,
	}
}

// drainer is a connection that tells when its server drains; the daemon's are.
type drainer interface{ Draining() <-chan struct{} }

// ServeConn serves one connection until it ends, and closes it. When ctx ends the
// connection is cut; handlers' contexts end with it. A connection with a method
// Draining() <-chan struct{} is left alone for Options.DrainTimeout when that
// channel is closed, new messages included, then ended between two messages.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn, kind Listen) {
	ss := newSession(ctx, s, conn, kind)
	s.start(ss, func() library.Milter { return ss })

	var draining <-chan struct{}
	if d, ok := conn.(drainer); ok {
		draining = d.Draining()
	}
	var patience <-chan time.Time
	for {
		select {
		case <-ss.done:
			return
		case <-ctx.Done():
			ss.guard.Kill()
			<-ss.done
			return
		case <-draining:
			draining = nil
			timer := time.NewTimer(s.opts.DrainTimeout)
			defer timer.Stop()
			patience = timer.C
		case <-patience:
			ss.guard.Stop()
		}
	}
}

// start has the library serve the session in a goroutine of its own, which ends
// with the connection. The library's server is for this connection alone: its
// accept loop ends at the first error of Accept, and its Close knows no sessions.
func (s *Server) start(ss *session, newMilter func() library.Milter) {
	defer func() {
		if p := recover(); p != nil {
			ss.panicked(p)
			_ = ss.guard.Close()
		}
	}()
	server := &library.Server{
		NewMilter: newMilter,
		Actions:   actions,
		Protocol:  protocol,
		SymList:   s.macros,
	}
	_ = server.Serve(&oneShot{conn: ss.guard}) // always io.EOF, from the second Accept
}

// oneShot is a listener with one connection, which survives it.
type oneShot struct{ conn net.Conn }

func (o *oneShot) Accept() (net.Conn, error) {
	if o.conn == nil {
		return nil, io.EOF
	}
	conn := o.conn
	o.conn = nil
	return conn, nil
}

func (o *oneShot) Close() error   { return nil }
func (o *oneShot) Addr() net.Addr { return nil }

func (s *Settings) originates(daemon string) bool {
	same := func(name string) bool { return strings.EqualFold(name, daemon) }
	return daemon != "" && slices.ContainsFunc(s.Originating, same)
}

func (s *Settings) internal(client netip.Addr) bool {
	has := func(p netip.Prefix) bool { return p.Contains(client) }
	return slices.ContainsFunc(s.InternalNetworks, has)
}

func (s *Settings) handler(r Role) Handler {
	if r == Sign {
		return s.Sign
	}
	return s.Verify
}
