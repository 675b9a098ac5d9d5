package doctor

import (
	"testing"

	"github.com/postern-mail/postern/internal/daemon"
)

// The internet's mail goes to a socket that there is.
func TestVerifySocket(t *testing.T) {
	at := func(address, role string) Listener {
		return Listener{place: place{daemon.NetworkTCP, address}, Role: role}
	}
	f := &Facts{Postfix: &Postfix{}}
	for _, test := range []struct {
		sockets []Listener
		want    string
	}{
		{[]Listener{at("127.0.0.1:1", roleSign), at("127.0.0.1:2", roleSession)}, "inet:127.0.0.1:2"},
		{[]Listener{at("127.0.0.1:1", roleSession), at("127.0.0.1:2", roleVerify)}, "inet:127.0.0.1:2"},
		{nil, "inet:127.0.0.1:10046"},
	} {
		if f.milterSockets = test.sockets; f.verifySocket() != test.want {
			t.Errorf("%v: %s", test.sockets, f.verifySocket())
		}
	}
}
