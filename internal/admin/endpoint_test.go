package admin

import (
	"strings"
	"testing"
)

func TestSetEndpoint(t *testing.T) {
	tests := []struct {
		spelling, network, path, err string
	}{
		{"unix:/run/postern/policyd.sock", "unix", "/run/postern/policyd.sock", ""},
		{"unix:postern/policyd.sock", "unix", "/var/spool/postfix/postern/policyd.sock", ""},
		{"/run/postern/policyd.sock", "unix", "/run/postern/policyd.sock", ""},
		{"policyd.sock", "unix", "policyd.sock", ""},
		{"/tmp/a=b:c.sock", "unix", "/tmp/a=b:c.sock", ""},
		{"inet:127.0.0.1:10050", "tcp", "127.0.0.1:10050", ""},
		{"", "", "", "write unix:PATH"},
		{"unix:", "", "", "needs a path"},
		{"unix:/run/", "", "", "directory"},
		{"unix:/run/x=ownership", "", "", "nothing after"},
		{"inet:10050", "", "", "host and port"},
		{"systemd:admin", "", "", "names no address"},
		{"systemd", "", "", "names no address"},
	}
	for _, tt := range tests {
		c := Client{Path: "before", Network: "before"}
		err := c.SetEndpoint(tt.spelling)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || c.Path != "before" || c.Network != "before" {
				t.Errorf("%q: %+v, %v; want %q", tt.spelling, c, err, tt.err)
			}
			continue
		}
		if err != nil || c.Network != tt.network || c.Path != tt.path {
			t.Errorf("%q: %+v, %v", tt.spelling, c, err)
		}
	}
}
