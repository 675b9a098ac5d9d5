package doctor

import (
	"strings"
	"testing"
)

// A service requires its socket, and a connection to the socket starts the service: one of
// them that is enabled is enough.
func TestUnitsThatStartEachOther(t *testing.T) {
	unit := func(name, state string) Unit {
		return Unit{Name: name, Descriptor: "policy", Properties: map[string]string{"LoadState": "loaded", "ActiveState": "active", "UnitFileState": state}}
	}
	for _, test := range []struct{ service, socket, want string }{
		{"enabled", "enabled", ""},
		{"enabled", "disabled", ""},
		{"disabled", "enabled", ""},
		{"disabled", "disabled", "postern-policyd.service is not enabled"},
	} {
		d := &Daemon{Name: "postern-policyd", Args: []string{"--listen", "systemd:policy"}, Unit: unit("postern-policyd.service", test.service), Sockets: []Unit{unit("postern-policyd.socket", test.socket)}}
		if got := show(d.unitFindings()); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("service %s, socket %s: %q, want %q", test.service, test.socket, got, test.want)
		}
	}
}
