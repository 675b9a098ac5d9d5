// Package policy answers Postfix's policy delegation requests.
//
// The files follow the way of the data. wire/ splits the stream into requests.
// request.go parses their attributes. chain.go asks the checks of
// policy/checks. decision.go holds the decision, action.go writes it for
// Postfix, and report.go records it.
//
// Invariants: every request gets exactly one reply and one record. A connection
// that breaks the protocol is closed, without a reply and with one record, and
// no other connection is affected. The text of a reply never contains an
// internal error.
package policy

import (
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy/wire"
)

// Hook holds the checks and the deadline of one request.
type Hook struct {
	Chain Chain
	// Deadline is the longest time from the last octet of a request to its
	// reply. Postfix waits 100 s (smtpd_policy_service_timeout), but its SMTP
	// client may wait less.
	Deadline time.Duration
	// Release is called once, when the decision has been made.
	Release func()
}

// Hooks returns the checks of a request.
type Hooks interface {
	// Hook takes a policy_context and the words that the listener is bound to,
	// as Router.Chain does. An error means that no check can be asked.
	Hook(context string, bound []string) (Hook, error)
}

// Conn is a connection that its owner may want to close between two requests.
// The server calls Idle before it waits for a request, and Busy when it has
// one. If one of them returns false, the server stops using the connection.
type Conn interface {
	net.Conn
	Idle() bool
	Busy() bool
}

// Server answers the requests of connections.
type Server struct {
	Hooks  Hooks
	Report Reporter
}

// ServeConn answers requests from conn. It returns when the client closes or
// breaks the protocol, or when the owner wants the connection closed. A request
// that has been read is answered first. ServeConn does not close conn.
func (s *Server) ServeConn(conn Conn, bound []string) {
	c := connection{server: s, conn: conn, reader: wire.NewReader(conn, vocabulary()...), bound: bound, now: time.Now()}
	defer c.recover()
	for c.next() {
	}
}

// connection is the state of one connection. Most of it is memory to reuse.
type connection struct {
	server *Server
	conn   Conn
	reader *wire.Reader
	bound  []string
	now    time.Time // when the clock was last read
	armed  time.Time // when the write deadline was last set

	request  Request
	decision Decision
	reply    []byte
	record   record.Record
}

// next answers one request and reports whether there can be another.
func (c *connection) next() bool {
	if !c.conn.Idle() {
		return false
	}
	c.reader.Arm(c.now)
	attrs, err := c.reader.Read()
	if !c.conn.Busy() {
		return false
	}
	if err == nil {
		c.now = time.Now()
		if err = parseRequest(&c.request, attrs, c.now); err == nil {
			return c.answer()
		}
	}
	// A client may close the connection or stay idle; that is no error.
	if broken := (*wire.ProtocolError)(nil); errors.As(err, &broken) || errors.Is(err, wire.ErrMilterClient) {
		c.server.Report.broken(c.peer(), record.BadRequest, err)
	}
	return false
}

func (c *connection) answer() bool {
	c.server.Report.Load.RequestStarted()
	defer c.server.Report.Load.RequestDone()
	r, d := &c.request, &c.decision
	c.server.decide(r, d, c.bound)
	a := action(r, d)
	c.now = time.Now()
	c.armWrite()
	var err error
	c.reply, err = wire.WriteReply(c.conn, c.reply, a.line)
	c.server.Report.decision(&c.record, r, d, a, c.now)
	return err == nil
}

// armWrite leaves a reply at least half of wire.WriteTimeout. To set a deadline
// for each reply would cost more than to make the reply.
func (c *connection) armWrite() {
	if c.now.Sub(c.armed) > wire.WriteTimeout/2 {
		c.armed = c.now
		c.conn.SetWriteDeadline(c.now.Add(wire.WriteTimeout))
	}
}

// decide starts the deadline of the request and asks the chain.
func (s *Server) decide(r *Request, d *Decision, bound []string) {
	d.reset()
	hook, err := s.Hooks.Hook(r.Context, bound)
	if err != nil {
		d.Verdict = Verdict{Kind: Defer, Reason: record.CheckFailed, Code: CodeTemporary, Text: errorText}
		d.Err = err
		return
	}
	defer hook.Release()
	budget := newBudget(r, hook.Deadline)
	defer budget.end()
	hook.Chain.decide(budget, r, d)
}

// recover turns a panic into the end of one connection, never of the daemon.
func (c *connection) recover() {
	if p := recover(); p != nil {
		c.server.Report.broken(c.peer(), record.Panicked, fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
	}
}

func (c *connection) peer() string {
	addr := c.conn.RemoteAddr()
	if name := addr.String(); name != "" && name != "@" {
		return name
	}
	return addr.Network() // a unix client has no name
}
