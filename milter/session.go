package milter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"runtime/debug"
	"strings"
	"time"

	library "github.com/emersion/go-milter"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/wire"
)

// session is one milter connection: the library's Milter. All of its methods run
// in the library's goroutine for this connection, the end included.
type session struct {
	server *Server
	kind   Listen
	guard  *wire.Guard
	ctx    context.Context // ends with the connection; the library's callbacks have none
	cancel context.CancelFunc

	peer    Session
	met     bool // peer is known
	msg     *message
	settled *reply // the final reply to the current message
	done    chan struct{}
}

var _ library.Milter = (*session)(nil)

func newSession(ctx context.Context, server *Server, conn net.Conn, kind Listen) *session {
	s := &session{server: server, kind: kind, done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(ctx)
	c := wire.Config{
		Idle:    server.opts.IdleTimeout,
		Frame:   server.opts.FrameTimeout,
		Write:   server.opts.WriteTimeout,
		Buffers: &server.buffers,
		Closed:  s.end,

		KeepBodies: true,
		Header:     s.keepField,
	}
	if b, ok := conn.(beginner); ok {
		c.Negotiated, c.Begun = b.Greet, b.Begin
	}
	s.guard = wire.New(conn, c)
	return s
}

// end is called when the connection is closed and nothing uses it any more.
func (s *session) end() {
	defer close(s.done)
	defer s.cancel()
	// The library no longer recovers here: a panic would end the daemon.
	_, _ = s.guarded(func() library.Response {
		if err := s.guard.Err(); err != nil && !errors.Is(err, wire.ErrStopped) && !errors.Is(err, errPanicked) {
			s.server.report.broken(s, err)
		}
		s.drop()
		return nil
	})
}

// Connect keeps the values that apply to the whole session.
func (s *session) Connect(string, string, uint16, net.IP, *library.Modifier) (library.Response, error) {
	growStack(0)
	return s.guarded(func() library.Response {
		s.meet(s.guard.Payload())
		return s.mute(library.OptNoConnReply)
	})
}

// meet begins an SMTP session. payload is that of CONNECT, empty if there was none.
func (s *session) meet(payload []byte) {
	peer := newPeer(payload, s.guard.Macros())
	peer.Helo, peer.TLSVersion = s.peer.Helo, s.peer.TLSVersion // HELO may have come alone
	s.peer, s.met = peer, true
	s.server.limits.check(s.guard, s.kind.protocol())
}

// muted reports whether the MTA agreed to wait for no reply at a stage. MTAs with an
// old protocol version wait for every reply.
func (s *session) muted(option library.OptProtocol) bool {
	return s.guard.Agreed().Protocol&uint32(option) != 0
}

// mute returns no reply if the MTA agreed to wait for none, else "continue".
func (s *session) mute(option library.OptProtocol) library.Response {
	return s.say(option, reply{code: library.ActContinue})
}

// say returns r, or no reply if the MTA agreed to wait for none. If r is final, it is
// then sent at the end of the message, see again.
func (s *session) say(option library.OptProtocol, r library.Response) library.Response {
	if s.muted(option) {
		return nil
	}
	if s.settled != nil {
		s.guard.MessageDone()
	}
	return r
}

// growStack makes the stack of a session's goroutine grow at once to the size that
// judging a message needs. Without it the stack would grow and be copied four times
// in each session, and many sessions bring only one message.
//
//go:noinline
func growStack(i byte) byte {
	var room [16 << 10]byte
	return room[i]
}

// newPeer reads CONNECT. The address in the MTA's macro is preferred: some MTAs send
// it in another form with CONNECT, or not at all.
func newPeer(payload []byte, macros *wire.Macros) Session {
	peer, _ := wire.ParseConnect(payload) // the guard let it pass, or it did not come
	s := Session{
		MTA:     macros.Get("j"),
		Daemon:  macros.Get("{daemon_name}"),
		Client:  peer.Addr,
		Port:    peer.Port,
		Name:    peer.Name,
		Reverse: macros.Get("{client_ptr}"),
	}
	if addr := wire.ParseAddr(macros.Get("{client_addr}")); addr.IsValid() {
		s.Client = addr
	}
	return s
}

// Helo keeps the latest name: it comes again after STARTTLS.
func (s *session) Helo(string, *library.Modifier) (library.Response, error) {
	return s.guarded(func() library.Response {
		s.peer.Helo = wire.HeloName(s.guard.Payload())
		s.peer.TLSVersion = s.guard.Macros().At(wire.Helo, "{tls_version}")
		return s.mute(library.OptNoHeloReply)
	})
}

// MailFrom begins a message.
func (s *session) MailFrom(string, *library.Modifier) (library.Response, error) {
	return s.guarded(func() library.Response {
		s.drop()
		if !s.met {
			growStack(0)
			s.meet(nil)
		}
		m := newMessage(s.ctx, wire.Args(s.guard.Payload()), s.peer, s.guard.Macros(), time.Now())
		m.settings, m.release = s.server.settings.Pin()
		s.msg = m
		m.Whose = m.settings.Whose(s.kind, &m.session, &m.Message)
		m.Role = m.Whose.Role()
		work, answer, err := s.begin(m)
		m.work = work
		answer = s.ruleOnError(answer, err)
		if work == nil && answer.Verdict == Continue {
			answer.Verdict = Accept
		}
		return s.say(always, s.answer(answer, m.Received))
	})
}

func (s *session) begin(m *message) (Work, Answer, error) {
	h := m.settings.handler(m.Role)
	if h == nil {
		return nil, Answer{Verdict: Accept, Reason: record.NotApplicable}, nil
	}
	return h.Begin(m.ctx, &m.session, &m.Message)
}

// ruleOnError applies the configured rule when a handler has failed.
func (s *session) ruleOnError(a Answer, err error) Answer {
	if err == nil {
		return a
	}
	failed := Answer{Verdict: Accept, Reason: record.CheckFailed, Err: err, Details: a.Details}
	if errors.Is(err, context.DeadlineExceeded) {
		failed.Reason = record.DeadlineSpent
	}
	if s.msg.settings.DeferOnError {
		failed.Verdict = Defer
		failed.Reply = Reply{Code: 451, Status: "4.3.0", Text: "Temporary failure, try again later"}
	}
	return failed
}

// answer returns the reply to a stage before the end of the message.
func (s *session) answer(a Answer, since time.Time) library.Response {
	s.msg.spare(&a)
	r := replyTo(a)
	if a.Verdict != Continue {
		s.server.report.message(s.msg, &a, r.String(), since)
		s.settle(r)
	}
	return r
}

// settle ends the current message with its final reply. If the MTA sends another
// command for the message, it gets the same reply again.
func (s *session) settle(r reply) {
	s.endMessage()
	s.settled = &r
}

// drop ends the current message, settled or not.
func (s *session) drop() {
	s.endMessage()
	s.settled = nil
}

func (s *session) endMessage() {
	m := s.msg
	if m == nil {
		return
	}
	s.msg = nil
	defer m.release()
	m.cancel()
	if m.work != nil {
		m.work.Close()
	}
}

// always is for the stages at which every MTA waits for a reply.
const always library.OptProtocol = 0

// during runs a callback that replies about the current message, unless it is
// settled. since is when the last octet of its command came. option is the protocol
// option of an MTA that does not wait for the reply.
func (s *session) during(option library.OptProtocol, stage func(m *message, since time.Time) library.Response) (library.Response, error) {
	return s.guarded(func() library.Response {
		if s.msg == nil {
			return s.say(option, s.again())
		}
		if id := s.guard.Macros().Get("i"); id != "" {
			s.msg.QueueID = id
		}
		return s.say(option, stage(s.msg, time.Now()))
	})
}

// RcptTo adds one recipient.
func (s *session) RcptTo(string, *library.Modifier) (library.Response, error) {
	return s.during(library.OptNoRcptReply, func(m *message, since time.Time) library.Response {
		address, _, _ := bytes.Cut(s.guard.Payload(), []byte{0})
		to := parseAddress(string(address)) // nothing keeps its parameters
		m.addRecipient(to)
		gate, ok := m.work.(Gate)
		if !ok || s.muted(library.OptNoRcptReply) {
			return replyTo(Answer{})
		}
		ctx, cancel := context.WithTimeout(m.ctx, m.settings.commandTimeout())
		defer cancel()
		a, err := gate.Recipient(ctx, to)
		return s.answerRecipient(s.ruleOnError(a, err), to.Raw, since)
	})
}

// answerRecipient refuses one recipient, or lets the message go on.
func (s *session) answerRecipient(a Answer, to string, since time.Time) library.Response {
	s.msg.spare(&a)
	if a.Verdict == Accept {
		a.Verdict = Continue
	}
	r := replyTo(a)
	if a.Verdict != Continue || a.Err != nil {
		s.server.report.recipient(s.msg, &a, r.String(), to, since)
	}
	if a.Verdict != Continue {
		s.msg.dropRecipient()
	}
	return r
}

// again repeats the final reply.
func (s *session) again() library.Response {
	if s.settled == nil {
		return reply{code: library.ActAccept}
	}
	return *s.settled
}

// Header is never called: the guard passes fields to keepField.
func (s *session) Header(string, string, *library.Modifier) (library.Response, error) {
	return nil, nil
}

// usualFields is the number of header fields for which there is room at once.
const usualFields = 32

// keepField keeps one field. payload is that of its command.
func (s *session) keepField(payload []byte) {
	_, _ = s.guarded(func() library.Response {
		if s.msg == nil {
			return nil
		}
		if s.msg.Header == nil {
			s.msg.Header = make([]Field, 0, usualFields)
		}
		// The name and the value share one string, and nothing else keeps the payload.
		name, value, _ := strings.Cut(crlf(string(payload[:len(payload)-1])), "\x00")
		s.msg.Header = append(s.msg.Header, Field{Name: name, Value: s.limits().received(value)})
		return nil
	})
}

// limits returns what the MTA of this connection allows.
func (s *session) limits() limits { return limits(s.guard.Agreed()) }

// Headers ends the header. The library's own map of it is empty.
func (s *session) Headers(textproto.MIMEHeader, *library.Modifier) (library.Response, error) {
	return s.during(library.OptNoEOHReply, s.endHeader)
}

func (s *session) endHeader(m *message, since time.Time) library.Response {
	m.headerEnded = true
	switch {
	case s.guard.HeaderOverflow():
		return s.answer(headerTooLarge(), since)
	case s.guard.HeaderNoRoom():
		return s.answer(headerNoRoom(), since)
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.settings.commandTimeout())
	defer cancel()
	if s.server.opts.Count != nil {
		s.server.opts.Count(m.Whose, m.hasDKIM2())
	}
	if a := m.settings.From.answer(ctx, m); a.Verdict != Continue {
		return s.answer(a, since)
	}
	a, err := m.work.Headers(ctx)
	return s.answer(s.ruleOnError(a, err), since)
}

// missingEnd ends the header if the MTA did not, when the body begins or the message
// ends. An answer that settles the message is then sent at the end of it, see again.
func (s *session) missingEnd() {
	if m := s.msg; m != nil && !m.headerEnded {
		s.endHeader(m, time.Now())
	}
}

// headerTooLarge refuses a message that cannot be judged. If it passed because of its
// many fields, that would be a way around every check.
func headerTooLarge() Answer {
	return Answer{
		Verdict: Reject,
		Reply:   Reply{Code: 552, Status: "5.3.4", Text: "Message header is too large"},
		Reason:  record.HeaderTooLarge,
		Err:     fmt.Errorf("header has over %d fields or %d octets", wire.MaxHeaders, wire.MaxHeaderBytes),
	}
}

// headerNoRoom defers a message whose header cannot be kept, for the same reason.
func headerNoRoom() Answer {
	return Answer{
		Verdict: Defer,
		Reply:   Reply{Code: 451, Status: "4.3.2", Text: "Too many messages with large headers, try again later"},
		Reason:  record.HeaderNoRoom,
		Err:     errors.New("messages with large headers hold all of the memory for headers"),
	}
}

// BodyChunk passes on a chunk. Its octets come from the guard.
func (s *session) BodyChunk([]byte, *library.Modifier) (library.Response, error) {
	return s.guarded(func() library.Response {
		s.missingEnd()
		if err := s.passBody(); err != nil {
			return nil // the guard keeps the reason
		}
		if s.msg == nil {
			return s.say(library.OptNoBodyReply, s.again())
		}
		return s.mute(library.OptNoBodyReply)
	})
}

// passBody passes on the octets of a chunk as they arrive.
func (s *session) passBody() error {
	for {
		piece, err := s.guard.BodyPiece()
		if err != nil || len(piece) == 0 {
			return err
		}
		if s.msg != nil && s.msg.bodyErr == nil {
			s.msg.bodyErr = s.msg.work.Body(piece)
		}
	}
}

// Body ends the message.
func (s *session) Body(*library.Modifier) (library.Response, error) {
	if _, err := s.guarded(func() library.Response { s.missingEnd(); return nil }); err != nil {
		return nil, err
	}
	return s.during(always, func(_ *message, since time.Time) library.Response {
		// Progress packets may be sent only while nothing else is unsent.
		if err := s.guard.Flush(); err != nil {
			s.guard.Fail(err)
			return nil
		}
		d, err := s.finish()
		if err != nil {
			d = Decision{Answer: s.ruleOnError(d.Answer, err)}
		} else {
			d.Answer = s.ruleOnError(d.Answer, d.Failed)
		}
		return s.deliver(&d, since)
	})
}

// finish calls the handler with a deadline, while progress packets keep the MTA
// waiting.
func (s *session) finish() (Decision, error) {
	m := s.msg
	if m.bodyErr != nil {
		return Decision{}, m.bodyErr
	}
	ctx, cancel := context.WithTimeout(m.ctx, m.settings.finishTimeout())
	defer cancel()
	p := startPulse(s.guard.Progress, cancel)
	defer p.stop()
	return m.work.Finish(ctx)
}

// deliver sends modifications and the final reply; the guard sends them in one piece.
func (s *session) deliver(d *Decision, since time.Time) library.Response {
	if s.msg.spare(&d.Answer) {
		d.Quarantine = ""
	}
	if d.Verdict == Continue {
		d.Verdict = Accept
	}
	r := replyTo(d.Answer)
	action := r.String()
	if d.Verdict == Accept {
		problem, err := edit(s.guard, s.limits(), d)
		if err != nil {
			s.guard.Fail(err)
			return nil
		}
		d.Err = errors.Join(d.Err, problem)
		action = describe(d)
	}
	s.server.report.message(s.msg, &d.Answer, action, since)
	s.settle(r)
	return r
}

// Abort ends the message. The values of CONNECT and HELO stay, unless another SMTP
// session follows on this connection.
func (s *session) Abort(*library.Modifier) error {
	_, err := s.guarded(func() library.Response {
		s.drop()
		if s.guard.NewPeer() {
			s.peer, s.met = Session{}, false
		}
		return nil
	})
	return err
}

// errPanicked is the reason for which the guard ends after a panic.
var errPanicked = errors.New("milter: panic")

// guarded runs one callback. A panic ends only this connection and is recorded. (The
// library recovers too, but cannot report the session.)
func (s *session) guarded(callback func() library.Response) (r library.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
			r, err = nil, nil
		}
	}()
	return callback(), nil
}

func (s *session) panicked(p any) {
	s.server.opts.Log.Error("panic in a milter session", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
	s.server.report.panicked(s, fmt.Errorf("panic: %v", p))
	s.guard.Fail(errPanicked)
}
