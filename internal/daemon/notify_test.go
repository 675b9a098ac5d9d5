package daemon

import (
	"errors"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestSystemdNotifier(t *testing.T) {
	path := filepath.Join(sockDir(t), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "3000000")
	n, err := SystemdNotifier()
	if err != nil {
		t.Fatal(err)
	}
	if n.Watchdog != 3*time.Second {
		t.Errorf("watchdog %v", n.Watchdog)
	}
	tests := []struct {
		send func() error
		want string // regular expression
	}{
		{func() error { return n.Ready("serving") }, `READY=1\nSTATUS=serving`},
		{func() error { return n.Ready("") }, `READY=1`},
		{func() error { return n.Starting("reading", time.Minute) }, `EXTEND_TIMEOUT_USEC=60000000\nSTATUS=reading`},
		{n.Reloading, `RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*\nSTATUS=reloading`},
		{func() error { return n.Stopping(90 * time.Second) }, `STOPPING=1\nEXTEND_TIMEOUT_USEC=90000000\nSTATUS=draining`},
		{func() error { return n.Ready("a\nMAINPID=1") }, `READY=1\nSTATUS=a MAINPID=1`},
		{n.keepAlive, `WATCHDOG=1`},
		{func() error { return n.MainPID(4711) }, `MAINPID=4711\nWATCHDOG=1`},
	}
	for _, tt := range tests {
		if err := tt.send(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		size, err := manager.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(buf[:size]); !regexp.MustCompile("^" + tt.want + "$").MatchString(got) {
			t.Errorf("sent %q, want %q", got, tt.want)
		}
	}
	manager.Close()
	if err := n.Ready(""); err == nil {
		t.Error("no error although nobody listens")
	}
}

func TestNotifierWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	n, err := SystemdNotifier()
	if err != nil || n.Watchdog != 0 {
		t.Fatalf("got %+v, %v", n, err)
	}
	if err := errors.Join(n.Ready("x"), Notifier{}.Ready("x"), Notifier{}.Reloading()); err != nil {
		t.Error(err)
	}
}

func TestSystemdNotifierMalformed(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "soon")
	if _, err := SystemdNotifier(); err == nil || !strings.Contains(err.Error(), "WATCHDOG_USEC") {
		t.Errorf("got %v", err)
	}
}
