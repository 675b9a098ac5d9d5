package milter

import "github.com/postern-mail/postern/internal/record"

// Whose is the name of the row of [WhoseRows] that applies to a message.
type Whose string

// The rows, in the order in which they are tried.
const (
	WhoseSignSocket      Whose = "sign_socket"
	WhoseVerifySocket    Whose = "verify_socket"
	WhoseLogin           Whose = "login"
	WhoseDaemonName      Whose = "daemon_name"
	WhoseInternalNetwork Whose = "internal_network"
	WhoseNone            Whose = "none_of_these"
)

// WhoseRow is one row of the table.
type WhoseRow struct {
	Whose Whose
	When  string // for the administrator
	Role  Role
	// applies is called only when no row above applies.
	applies func(s *Settings, kind Listen, peer *Session, m *Message) bool
}

// WhoseRows returns the table that decides whose mail a message is. The socket
// decides first, because nothing in the mail or its session can change it.
func WhoseRows() []WhoseRow {
	return []WhoseRow{
		{WhoseSignSocket, "it comes in at a socket of --listen-sign", Sign, func(_ *Settings, kind Listen, _ *Session, _ *Message) bool { return kind == SignOnly }},
		{WhoseVerifySocket, "it comes in at a socket of --listen-verify", Verify, func(_ *Settings, kind Listen, _ *Session, _ *Message) bool { return kind == VerifyOnly }},
		{WhoseLogin, "at --listen, the client has logged in ({auth_authen}, {auth_type})", Sign, func(_ *Settings, _ Listen, _ *Session, m *Message) bool { return m.Authenticated() }},
		{WhoseDaemonName, "at --listen, {daemon_name} is in --originating", Sign, func(s *Settings, _ Listen, peer *Session, _ *Message) bool { return s.originates(peer.Daemon) }},
		{WhoseInternalNetwork, "at --listen, the client is in --internal-networks", Sign, func(s *Settings, _ Listen, peer *Session, _ *Message) bool { return s.internal(peer.Client) }},
		{WhoseNone, "at --listen, none of these", Verify, func(*Settings, Listen, *Session, *Message) bool { return true }},
	}
}

// whoseRows is the table, made once, because every message needs it.
var whoseRows = WhoseRows()

// Whose returns whose mail a message is.
func (s *Settings) Whose(kind Listen, peer *Session, m *Message) Whose {
	for i := range whoseRows {
		if whoseRows[i].applies(s, kind, peer, m) {
			return whoseRows[i].Whose
		}
	}
	return WhoseNone
}

// Role returns what is done with such mail.
func (w Whose) Role() Role {
	for i := range whoseRows {
		if whoseRows[i].Whose == w {
			return whoseRows[i].Role
		}
	}
	return Verify
}

// OwnMailRow is a reason for which our own mail is not signed.
type OwnMailRow struct {
	Reason record.Reason
	When   string
}

// OwnMailRows returns the rest of the table: our own mail that is not signed. Rows
// are tried in this order, when the header has come and at the end of the message.
func OwnMailRows() []OwnMailRow {
	return []OwnMailRow{
		{record.SignMarked, "our mark says that it came from outside and its author was not proven"},
		{record.SignAlreadySigned, "each key has a valid signature on it already: a content filter, a relay or a list handed it back"},
	}
}
