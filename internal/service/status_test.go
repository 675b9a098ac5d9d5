package service

import (
	"bufio"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/config"
)

// A page that strangers could reach is not served without a token that cannot be
// guessed; the settings are checked in the same way.
func TestStatusPageNeedsToken(t *testing.T) {
	short := newProcess(t).path("short")
	if err := os.WriteFile(short, []byte("guess\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"every address", []string{"--status-listen=inet:0.0.0.0:0"}, "--status-listen: "},
		{"an address of the network", []string{"--status-listen=inet:192.0.2.1:9147"}, "needs status-token-file"},
		{"a name", []string{"--status-listen=inet:mx.example.org:9147"}, "needs status-token-file"},
		{"a token that is short", []string{"--status-listen=inet:127.0.0.1:0", "--status-token-file=" + short}, "openssl rand"},
		{"a token that is not there", []string{"--status-listen=inet:127.0.0.1:0", "--status-token-file=" + short + "er"}, "--status-token-file: "},
		{"a peer that is none", []string{"--status-listen=inet:127.0.0.1:0", "--status-peers=mx2"}, "--status-peers: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, more := range []string{"", "--check-config"} {
				p := newProcess(t, tt.args...)
				args := p.args
				if more != "" {
					args = append(args, more)
				}
				status := Main(p.gate, Process{Args: args, Stdout: p, Stderr: p, Signals: p.signals})
				if status != config.ExitConfig || !strings.Contains(p.logged(), tt.want) {
					t.Errorf("%s: exit status %d, %s", more, status, p.logged())
				}
				if strings.Contains(p.logged(), "guess\n") {
					t.Error("the token is in the error")
				}
			}
		})
	}
}

// An open page does not delay the end of the daemon.
func TestStatusPageEndsWithDaemon(t *testing.T) {
	p := newProcess(t)
	p.args = append(p.args, "--status-listen=unix:"+p.path("status"))
	p.start(t)
	transport := dialling(p.path("status"))
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Get("http://localhost/api/events")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 1<<20)
	heard := ""
	for !strings.Contains(heard, "event: news") && lines.Scan() {
		heard += lines.Text() + "\n"
	}
	if answer.StatusCode != http.StatusOK || !strings.Contains(heard, "gate on ") {
		t.Errorf("%s: %s", answer.Status, heard)
	}
	p.stop(t)
	for lines.Scan() {
	}
	if _, err := os.Stat(p.path("status")); err == nil {
		t.Error("the socket is still there")
	}
}
