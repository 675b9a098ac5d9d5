package milter

import (
	"net/netip"
	"testing"
)

// Every row of the table decides about some mail to which no row above it applies.
func TestWhose(t *testing.T) {
	s := Settings{Originating: []string{"ORIGINATING"}, InternalNetworks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	inside, outside := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	seen := make(map[Whose]bool)
	for _, tt := range []struct {
		name string
		kind Listen
		peer Session
		mail Message
		want Whose
		role Role
	}{
		{"a stranger at the sign socket", SignOnly, Session{Client: outside}, Message{}, WhoseSignSocket, Sign},
		{"a user at the verify socket", VerifyOnly, Session{Client: inside, Daemon: "ORIGINATING"}, Message{Login: "alice"}, WhoseVerifySocket, Verify},
		{"a login", BySession, Session{Client: outside}, Message{Login: "alice"}, WhoseLogin, Sign},
		{"a login without a name", BySession, Session{Client: outside}, Message{AuthType: "EXTERNAL"}, WhoseLogin, Sign},
		{"a login from inside", BySession, Session{Client: inside, Daemon: "originating"}, Message{Login: "alice"}, WhoseLogin, Sign},
		{"a service", BySession, Session{Client: outside, Daemon: "originating"}, Message{}, WhoseDaemonName, Sign},
		{"a service, from inside", BySession, Session{Client: inside, Daemon: "ORIGINATING"}, Message{}, WhoseDaemonName, Sign},
		{"from inside", BySession, Session{Client: inside, Daemon: "MX"}, Message{}, WhoseInternalNetwork, Sign},
		{"from outside", BySession, Session{Client: outside, Daemon: "MX"}, Message{}, WhoseNone, Verify},
		{"from this machine", BySession, Session{Client: netip.MustParseAddr("127.0.0.1")}, Message{}, WhoseNone, Verify},
		{"nothing known", BySession, Session{}, Message{}, WhoseNone, Verify},
	} {
		got := s.Whose(tt.kind, &tt.peer, &tt.mail)
		if got != tt.want || got.Role() != tt.role {
			t.Errorf("%s: %s, %s; want %s, %s", tt.name, got, got.Role(), tt.want, tt.role)
		}
		seen[got] = true
	}
	for _, row := range WhoseRows() {
		if !seen[row.Whose] {
			t.Errorf("no mail is of row %s", row.Whose)
		}
	}
}
