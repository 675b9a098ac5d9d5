// Package wire checks the bytes of a milter connection before the protocol library
// sees them, and decides when our own bytes are sent.
//
// The milter protocol is a stream of frames: four octets of length (big endian), one
// octet of command, then the payload. The MTA negotiates options, then sends the
// connection and HELO. For each message it sends MAIL, RCPT, header fields, end of
// header, body chunks and end of message. It waits for a reply after most commands. A
// macro frame ("name NUL value NUL" pairs, prefixed by the command that it belongs
// to) may precede any of them.
//
// A [Guard] is between the connection and the library and is a net.Conn
// itself. Its invariants:
//   - the library sees only whole, known commands in an order that the protocol
//     allows, of bounded length, with a payload of the right shape;
//   - anything else ends the connection, with the reason in [Guard.Err];
//   - macro frames are not passed on: [Macros] keeps the latest of each stage, and
//     drops them when the stage comes again without macros;
//   - header fields and the octets of body chunks may be kept from the library too,
//     see [Config];
//   - every blocking read and write has a deadline;
//   - written octets are sent in one piece when the guard waits for the peer, so that
//     modifications and verdict share one packet.
//
// It knows no mail policy.
package wire

import (
	"errors"
	"fmt"
)

// Command is the first octet of a frame from the MTA (SMFIC_*).
type Command byte

// The commands that may come from an MTA.
const (
	Negotiate Command = 'O'
	Macro     Command = 'D'
	Connect   Command = 'C'
	Helo      Command = 'H'
	Mail      Command = 'M'
	Rcpt      Command = 'R'
	Data      Command = 'T'
	Header    Command = 'L'
	EndHeader Command = 'N'
	Body      Command = 'B'
	EndBody   Command = 'E'
	Abort     Command = 'A'
	Quit      Command = 'Q'
	QuitNC    Command = 'K' // quit; a new SMTP session follows on this connection
	Unknown   Command = 'U' // an SMTP command that the MTA does not know
)

// Bounds of payloads, in octets. A frame beyond them ends the connection.
const (
	// MaxBodyChunk is the protocol's own bound unless more was negotiated, which
	// we never do.
	MaxBodyChunk = 65535
	// MaxHeaderFrame leaves room for a header_size_limit far above Postfix's default
	// of 102,400; the library refuses more than a mebibyte.
	MaxHeaderFrame = 1<<20 - 1
	// MaxMacroFrame bounds the macros of one stage, and MaxMacros those of all stages
	// of a connection; they are kept.
	MaxMacroFrame = 16 << 10
	MaxMacros     = 48 << 10
	// MaxCommandFrame bounds CONNECT, HELO, MAIL and RCPT. An SMTP command line
	// that Postfix accepts has 2,048 octets by default.
	MaxCommandFrame = 8 << 10
	// maxNegotiation leaves room for extensions after the three numbers.
	maxNegotiation = 1 << 10
)

// Bounds of one message's header. Fields beyond them are dropped, and
// [Guard.HeaderOverflow] reports it. The connection stays open, because Postfix
// answers 451 to every later MAIL of a session that lost its milter.
const (
	MaxHeaders     = 8192
	MaxHeaderBytes = 1 << 20 // names and values together
)

// rule says what the payload of one command may be and where it may come.
type rule struct {
	name     string
	min, max int    // payload length
	in       phases // where it may be
	shape    func(payload []byte) error
}

// phase is how far a connection has come. A message that got its final reply early
// stays in its phase until the MTA begins another one.
type phase uint8

const (
	atStart  phase = iota // nothing negotiated yet
	atReady               // negotiated, CONNECT has not come
	atIdle                // between messages
	atMail                // in the envelope
	atHeader              // a header field has come
	atBody                // the header has ended
)

type phases uint8

func (p phases) has(at phase) bool { return p&(1<<at) != 0 }

const (
	inStart    phases = 1 << atStart
	inReady    phases = 1 << atReady
	inIdle     phases = 1 << atIdle
	inMail     phases = 1 << atMail
	inHeader   phases = 1 << atHeader
	inBody     phases = 1 << atBody
	inMessage         = inMail | inHeader | inBody
	inSession         = inIdle | inMessage
	everywhere        = inStart | inReady | inSession
)

// ruleFor returns the rule of a command. MAIL may come anywhere after the
// negotiation: the MTA need not abort a message that has its final reply, and some
// MTAs leave out CONNECT and HELO. HELO may come inside a message, because Postfix
// sends it before the ABORT of that message. The end of the header may be missing,
// and so may the body. By the protocol, EndBody could carry a last chunk of the body.
// The library would lose it, but no MTA sends one to a filter that speaks version 2.
func ruleFor(c Command) (rule, bool) {
	switch c {
	case Negotiate:
		return rule{"option negotiation", 12, maxNegotiation, inStart | inReady, nil}, true
	case Macro:
		return rule{"macro", 1, MaxMacroFrame, inReady | inSession, checkMacros}, true
	case Connect:
		return rule{"CONNECT", 2, MaxCommandFrame, inReady, checkConnect}, true
	case Helo:
		return rule{"HELO", 1, MaxCommandFrame, inReady | inSession, checkHelo}, true
	case Mail:
		return rule{"MAIL", 1, MaxCommandFrame, inReady | inSession, checkArgs}, true
	case Rcpt:
		return rule{"RCPT", 2, MaxCommandFrame, inMail, checkArgs}, true
	case Data:
		return rule{"DATA", 0, 0, inMail, nil}, true
	case Header:
		return rule{"header", 3, MaxHeaderFrame, inMail | inHeader, checkHeader}, true
	case EndHeader:
		return rule{"end of header", 0, 0, inMail | inHeader, nil}, true
	case Body:
		return rule{"body", 0, MaxBodyChunk, inMessage, nil}, true
	case EndBody:
		return rule{"end of body", 0, 0, inMessage, nil}, true
	case Abort:
		return rule{"ABORT", 0, 0, inReady | inSession, nil}, true
	case Quit:
		return rule{"QUIT", 0, 0, everywhere, nil}, true
	case QuitNC:
		return rule{"QUIT_NC", 0, 0, inReady | inSession, nil}, true
	case Unknown:
		return rule{"unknown SMTP command", 0, MaxCommandFrame, inReady | inSession, nil}, true
	}
	return rule{}, false
}

// after returns the phase that a command leads to.
func (at phase) after(c Command) phase {
	switch c {
	case Negotiate, QuitNC:
		return atReady
	case Connect, EndBody:
		return atIdle
	case Mail:
		return atMail
	case Header:
		return atHeader
	case EndHeader, Body:
		return atBody
	case Abort:
		if at != atReady {
			return atIdle
		}
	}
	return at
}

// Errors that callers distinguish; all others are violations of the protocol.
var (
	// ErrIdle is a peer that said nothing for the whole idle time.
	ErrIdle = errors.New("milter: the MTA was silent for too long")
	// ErrStalled is a peer that stopped inside a frame, or takes no replies.
	ErrStalled = errors.New("milter: the MTA stalled")
	// ErrTruncated is a connection that ended inside a frame.
	ErrTruncated = errors.New("milter: the connection ended inside a frame")
	// ErrStopped is the end of a drained connection, between two messages.
	ErrStopped = errors.New("milter: the server stopped")
	// ErrCut is the end of a connection by [Guard.Kill].
	ErrCut = errors.New("milter: the server cut the connection")
)

// ProtocolError is a frame that the protocol does not allow here.
type ProtocolError struct{ Problem string }

func (e *ProtocolError) Error() string { return "milter: " + e.Problem }

func protocolError(format string, args ...any) error {
	return &ProtocolError{Problem: fmt.Sprintf(format, args...)}
}

// checkCommand checks the first five octets of a frame: the command must be known,
// allowed in this phase, and its length within the bounds.
func checkCommand(c Command, payload int, at phase) (rule, error) {
	r, known := ruleFor(c)
	switch {
	case !known:
		return r, protocolError("unknown command %q", byte(c))
	case !r.in.has(at):
		return r, protocolError("%s out of order", r.name)
	case payload < r.min:
		return r, protocolError("%s of %d octets is too short", r.name, payload)
	case payload > r.max:
		return r, protocolError("%s of %d octets is too long (at most %d)", r.name, payload, r.max)
	}
	return r, nil
}
