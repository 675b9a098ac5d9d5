package milter

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/wire"
)

// MaxRecipients is how many recipients of a message are kept; more are counted.
const MaxRecipients = 1000

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
	Verify Role = iota // somebody else's mail: judge it
	Sign               // our own mail: sign it
)

// String gives the word of records.
func (r Role) String() string {
	if r == Sign {
		return "sign"
	}
	return "verify"
}

// Message is one message, as far as it has come.
type Message struct {
	Role     Role
	Whose    Whose  // the row that says so
	QueueID  string // known after the first accepted recipient
	Sender   mailaddr.Address
	Params   []string // ESMTP parameters of MAIL, as written
	Login    string   // {auth_authen}: who authenticated, "" for nobody
	AuthType string   // {auth_type}: the SASL mechanism

	Recipients     []mailaddr.Address // the first MaxRecipients that came
	RecipientCount int

	Header   []Field
	Received time.Time // when MAIL came

	// Internal is mail of cleanup(8) with the null reverse path: bounces,
	// vacation notices and the like. Nobody is there to be told of a refusal.
	Internal bool
}

// Authenticated tells whether the client logged in.
func (m *Message) Authenticated() bool { return m.Login != "" || m.AuthType != "" }

// Param gives the value of an ESMTP parameter of MAIL, such as BODY or SIZE; its
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

// Get gives the value of the first field of a name, without the white space
// around it, or "".
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
type Field struct {
	Name  string
	Value string // with the white space behind the colon; folds are CRLF
}

// crlf turns the line feeds of a folded value, which is how MTAs send folds, into
// CRLF.
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

// parseAddress reads the address of MAIL or RCPT. Brackets are no part of it, so
// that records show what policy records show.
func parseAddress(arg string) mailaddr.Address {
	if inner, ok := strings.CutPrefix(arg, "<"); ok {
		if inner, ok = strings.CutSuffix(inner, ">"); ok {
			return mailaddr.Parse(inner)
		}
	}
	return mailaddr.Parse(arg)
}

// message is a Message with all that the server needs for it.
type message struct {
	Message
	session  Session
	settings *Settings
	release  func() // of the settings
	work     Work   // nil once the message is settled

	steps   []record.Step // of checks before the handler's
	trouble error         // of theirs, though the message went on

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

// spare turns the refusal of a message that must not be refused into its
// acceptance, and reports whether the message is one of those. Postfix takes a
// refused bounce for an error of its configuration, and keeps or loses it.
func (m *message) spare(a *Answer) bool {
	if m.Internal && a.Verdict > Accept {
		a.Verdict, a.Reply = Accept, Reply{}
	}
	return m.Internal
}

func (m *message) addRecipient(to mailaddr.Address) {
	m.RecipientCount++
	if len(m.Recipients) < MaxRecipients {
		m.Recipients = append(m.Recipients, to)
	}
}

// dropRecipient forgets the latest recipient: it was refused.
func (m *message) dropRecipient() {
	if m.RecipientCount == len(m.Recipients) {
		m.Recipients = m.Recipients[:len(m.Recipients)-1]
	}
	m.RecipientCount--
}
