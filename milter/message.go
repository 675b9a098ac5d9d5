package milter

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/milter/wire"
)

// Session is the SMTP session of a message, as known at its MAIL command.
type Session struct {
	MTA        string // the MTA's name: {j}
	Daemon     string // {daemon_name}; ORIGINATING for one's own users, by convention
	Client     netip.Addr
	Port       uint16 // 0 if unknown
	Name       string // verified host name, or "[address]"
	Reverse    string // unverified host name: {client_ptr}
	Helo       string // of the latest HELO or EHLO
	TLSVersion string // "" without TLS
}

// Role is what is done with a message.
type Role uint8

// Roles.
const (
	Verify Role = iota // mail of others: judge it
	Sign               // our own mail: sign it
)

// String returns the word for records.
func (r Role) String() string {
	if r == Sign {
		return "sign"
	}
	return "verify"
}

// Message is one message, as far as it has come.
type Message struct {
	Role     Role
	Whose    Whose  // the row of the table that decided the role
	QueueID  string // known after the first accepted recipient
	Sender   mailaddr.Address
	Params   []string // ESMTP parameters of MAIL, as written
	Login    string   // {auth_authen}: the login, "" without one
	AuthType string   // {auth_type}: the SASL mechanism

	Recipient      mailaddr.Address // the first that was not refused
	RecipientCount int              // that were not refused

	Header   []Field
	Received time.Time // when MAIL came

	// Internal is mail of cleanup(8) with the null reverse path: bounces, vacation
	// notices and the like. A refusal of it would reach no one.
	Internal bool
}

// Authenticated reports whether the client has logged in.
func (m *Message) Authenticated() bool { return m.Login != "" || m.AuthType != "" }

// Param returns the value of an ESMTP parameter of MAIL, such as BODY or SIZE; its
// name is compared ignoring case.
func (m *Message) Param(name string) (value string, ok bool) {
	for _, p := range m.Params {
		key, value, _ := strings.Cut(p, "=")
		if strings.EqualFold(key, name) {
			return value, true
		}
	}
	return "", false
}

// Get returns the value of the first field of a name, without the white space around
// it, or "".
func (m *Message) Get(name string) string {
	for i := range m.Header {
		if strings.EqualFold(m.Header[i].Name, name) {
			return strings.Trim(m.Header[i].Value, " \t\r\n")
		}
	}
	return ""
}

// Field is one header field. Name + ":" + Value + CRLF is the field as the
// message has it.
type Field = sign.Field

// crlf turns the line feeds of a folded value into CRLF. MTAs send folds as LF.
func crlf(value string) string {
	if strings.IndexByte(value, '\n') < 0 {
		return value
	}
	var b strings.Builder
	b.Grow(len(value) + strings.Count(value, "\n"))
	for i := range len(value) {
		if value[i] == '\n' && (i == 0 || value[i-1] != '\r') {
			b.WriteByte('\r')
		}
		b.WriteByte(value[i])
	}
	return b.String()
}

// parseAddress reads the address of MAIL or RCPT. It drops the angle brackets, as the
// records of postern-policyd do.
func parseAddress(arg string) mailaddr.Address {
	if inner, ok := strings.CutPrefix(arg, "<"); ok {
		if inner, ok = strings.CutSuffix(inner, ">"); ok {
			return mailaddr.Parse(inner)
		}
	}
	return mailaddr.Parse(arg)
}

// message is a Message with the state that the server keeps for it.
type message struct {
	Message
	session  Session
	settings *Settings
	release  func() // of the settings
	work     Work   // nil once the message is settled

	steps   []record.Step // of the checks before the handler
	trouble error         // their error, when the message went on

	headerEnded bool
	bodyErr     error
	ctx         context.Context // ends with the message; the library's callbacks have none
	cancel      context.CancelFunc
}

// newMessage reads MAIL.
func newMessage(ctx context.Context, args []string, s Session, macros *wire.Macros, now time.Time) *message {
	m := &message{session: s}
	m.Sender = parseAddress(args[0])
	m.Internal = args[0] == ""
	m.Params = args[1:]
	m.Login = macros.At(wire.Mail, "{auth_authen}")
	m.AuthType = macros.At(wire.Mail, "{auth_type}")
	m.Received = now
	m.ctx, m.cancel = context.WithCancel(ctx)
	return m
}

// spare turns a refusal into an acceptance for messages that must not be refused, and
// reports whether the message is one. Postfix treats a refused bounce as an error in
// its configuration, and keeps or loses it.
func (m *message) spare(a *Answer) bool {
	if m.Internal && a.Verdict > Accept {
		a.Verdict, a.Reply = Accept, Reply{}
	}
	return m.Internal
}

func (m *message) addRecipient(to mailaddr.Address) {
	if m.RecipientCount == 0 {
		m.Recipient = to
	}
	m.RecipientCount++
}

// dropRecipient removes the latest recipient, because it was refused.
func (m *message) dropRecipient() {
	m.RecipientCount--
	if m.RecipientCount == 0 {
		m.Recipient = mailaddr.Address{}
	}
}
