// Package milter serves the milter protocol: it passes each message to the handler of
// its role, and sends the handler's decision to the MTA.
//
// Postfix opens one milter connection for each SMTP session. It sends CONNECT once,
// and HELO again after STARTTLS. For each message it sends MAIL, RCPT, header fields,
// body chunks and the end, where it expects modifications and the final reply. ABORT
// ends a message early. github.com/emersion/go-milter implements the protocol itself;
// package wire checks what it reads.
//
// The files follow the data: server (one connection), session (the callbacks of the
// protocol), message (typed values), decision (the answers of handlers), action
// (replies and modifications on the wire), report (one record, one count).
//
// Invariants:
//   - the values of CONNECT and HELO apply to every message of the session, those of
//     MAIL to one message;
//   - every message that gets a final reply has one record, and so has every
//     connection that the server ends, other than to make room for another one;
//   - modifications and the final reply are sent in one write;
//   - when a handler fails, the configured rule is applied; when it panics, only its
//     connection ends. Both are recorded;
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
	// DefaultFinishTimeout is far below the 300 s that Postfix waits at the end of a
	// message, and below the time that SMTP clients wait for the reply to their data.
	DefaultFinishTimeout = 30 * time.Second
	// DefaultCommandTimeout is below the 30 s that Postfix waits after RCPT.
	DefaultCommandTimeout = 20 * time.Second
	// DefaultDrainTimeout is how long sessions go on when draining has begun.
	DefaultDrainTimeout = 5 * time.Minute
)

// Listen says how a listener decides whose mail it gets.
type Listen uint8

// Kinds of listeners.
const (
	BySession  Listen = iota // each message by its session, see [Settings]
	SignOnly                 // all of it is ours
	VerifyOnly               // none of it is ours
)

// Source returns the settings for each message.
type Source interface {
	// Pin returns the settings for a message that begins now. They stay usable until
	// release is called, once, when the message is over.
	Pin() (s *Settings, release func())
}

// Settings apply to a message from its MAIL on.
type Settings struct {
	Sign   Handler // nil: mail of this role passes untouched
	Verify Handler

	// From checks the header of authenticated mail of both roles; may be nil.
	From *FromCheck

	// Originating lists each {daemon_name} whose mail is ours, ignoring case;
	// InternalNetworks lists the clients. Both are used on BySession listeners,
	// beside the client's login.
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

// Options apply for the whole life of the server.
type Options struct {
	Log     *zap.Logger // for panics and warnings; nil drops them
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

	// HeaderRoom is the memory for large headers of all messages under way, see
	// [wire.Buffers]; 0 is the default.
	HeaderRoom int64

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
	server.buffers.HeaderRoom = o.HeaderRoom
	server.limits.log, server.limits.count = o.Log, o.Limited
	return server
}

// Actions and protocol options that the milter asks for. It sends no reply where the
// MTA can wait for a later one, because each reply is a round trip. So a message that
// is refused for its header gets this reply at its end: Postfix has the whole message
// when it sends the header. With replies to body chunks, the rest of a body could be
// skipped. But most bodies are one chunk, so this would cost more than it saves.
// The reply to MAIL makes Postfix send the command at once, and so the checks of the
// envelope begin while the client sends the rest.
//
// A listener that only signs also sends no reply to recipients: the sign role refuses
// none.
const (
	actions = library.OptAddHeader | library.OptChangeHeader | library.OptQuarantine |
		library.OptSetSymList
	protocol = library.OptHeaderLeadingSpace | library.OptNoUnknown | library.OptNoData |
		library.OptNoConnReply | library.OptNoHeloReply |
		library.OptNoHeaderReply | library.OptNoEOHReply | library.OptNoBodyReply
	signProtocol = protocol | library.OptNoRcptReply
)

// protocol returns the protocol options for a kind of listener.
func (l Listen) protocol() library.OptProtocol {
	if l == SignOnly {
		return signProtocol
	}
	return protocol
}

// macroList returns the macros that the MTA shall send at each stage. They are
// requested because an administrator's own list may lack those that the roles depend
// on. The list has every stage, because an MTA may send nothing for a stage that is
// left out.
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

// drainer is a connection that signals when its server drains. Those of the daemon
// do.
type drainer interface{ Draining() <-chan struct{} }

// beginner is a connection that its owner may close until it begins. Those of the daemon
// are.
type beginner interface {
	Greet() // after the negotiation
	Begin() // at the first command
}

// ServeConn serves one connection until it ends, and closes it. When ctx ends, the
// connection is closed and the contexts of handlers end. When the channel of a
// connection with the method Draining() <-chan struct{} is closed, the connection
// goes on for Options.DrainTimeout, also with new messages, and then ends between two
// messages. If the connection has the methods Greet() and Begin(), they are called after
// the negotiation and at the first command.
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

// start lets the library serve the session in a goroutine of its own, which ends with
// the connection. Each connection has its own server of the library, because its
// accept loop ends at the first error of Accept, and its Close does not end sessions.
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
		Protocol:  ss.kind.protocol(),
		SymList:   s.macros,
	}
	_ = server.Serve(&oneShot{conn: ss.guard}) // always io.EOF, from the second Accept
}

// oneShot is a listener with one connection. The connection stays open when the
// listener is closed.
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
