package admin

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

func TestUseSettings(t *testing.T) {
	const usual = "unix:/run/postern/milterd.sock"
	for text, want := range map[string]string{
		"":                        usual,
		"# admin = \"unix:/x\"\n": usual,
		"listen = [\"inet:127.0.0.1:1\"]\nadmin = \"unix:/run/box/milterd.sock\" # ours\n": "unix:/run/box/milterd.sock",
		"admin = 'inet:127.0.0.1:10050'\n":                                                 "inet:127.0.0.1:10050",
		"admin = \"\"\n":                                                                   usual,
		"admin = \"systemd:admin\"\n":                                                      usual,
		"admin = [\"unix:/x\"\n":                                                           usual,
		"[milterd]\nadmin = \"unix:/x\"\n":                                                 usual,
	} {
		file := filepath.Join(t.TempDir(), "milterd.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := Client{Path: "/run/postern/milterd.sock"}
		if c.UseSettings(file); c.Endpoint() != want {
			t.Errorf("%q: %s, want %s", text, c.Endpoint(), want)
		}
	}
	c := Client{Path: "/run/postern/milterd.sock"}
	if c.UseSettings(t.TempDir() + "/missing.toml"); c.Endpoint() != usual {
		t.Errorf("without a file: %s", c.Endpoint())
	}
	pipe := filepath.Join(t.TempDir(), "milterd.toml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if c.UseSettings(pipe); c.Endpoint() != usual { // it does not wait for a writer
		t.Errorf("a pipe: %s", c.Endpoint())
	}
}
