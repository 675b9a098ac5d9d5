package service

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
)

// A unit has systemd:verify where the file has the address. That is no mistake, unless the
// socket is somewhere else.
func TestListensAt(t *testing.T) {
	const name = "listen"
	var listeners []daemon.Listener
	unix := filepath.Join(t.TempDir(), "s")
	for _, at := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", unix}} {
		l, err := net.Listen(at[0], at[1])
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		listeners = append(listeners, daemon.Listener{Listener: l, Socket: daemon.Socket{Flag: "--" + name}})
	}
	tcp := "inet:" + listeners[0].Addr().String()
	for _, test := range []struct {
		name   string
		values []string
		want   bool
	}{
		{name, []string{"unix:" + unix, tcp}, true},
		{name, []string{tcp}, false},
		{name, []string{tcp, "inet:127.0.0.1:1"}, false},
		{"listen-sign", []string{tcp}, false},
		{"listen-sign", nil, false},
		{"greylist-delay", []string{"5m"}, false},
	} {
		if got := listensAt(listeners, config.Beaten{Name: test.name, Values: test.values}); got != test.want {
			t.Errorf("%s %q: %v", test.name, test.values, got)
		}
	}
}
