package service

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/daemon"
)

// managed returns a notifier that sends to a real socket, and a function that returns what
// has arrived there since the last call.
func managed(t *testing.T) (daemon.Notifier, func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = manager.Close() })
	raw, err := manager.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	n, err := daemon.SystemdNotifier()
	if err != nil {
		t.Fatal(err)
	}
	return n, func() string {
		buf, size := make([]byte, 4096), 0
		if err := raw.Control(func(fd uintptr) {
			size, _, _ = syscall.Recvfrom(int(fd), buf, syscall.MSG_DONTWAIT)
		}); err != nil {
			t.Fatal(err)
		}
		return string(buf[:max(size, 0)])
	}
}

// A start that takes long asks the service manager for more time as long as it makes
// progress, and not after that.
func TestStartTakesLong(t *testing.T) {
	notifier, heard := managed(t)
	core, logs := observer.New(zap.InfoLevel)
	synctest.Test(t, func(t *testing.T) {
		var r reading
		s := starting{signals: make(chan os.Signal), notifier: notifier, reading: &r, log: zap.New(core)}
		failed := errors.New("failed")
		ended := make(chan error, 1)
		finish := make(chan struct{})
		go func() {
			ended <- s.wait(func() error {
				r.read("limit", 7)
				r.read("greylist", 4_000_000)
				time.Sleep(startLook + time.Second)
				r.read("greylist", 200_000)
				<-finish
				return failed
			})
		}()
		for i, want := range []string{
			"EXTEND_TIMEOUT_USEC=60000000\nSTATUS=reading the greylist store: 4000000 entries",
			"EXTEND_TIMEOUT_USEC=60000000\nSTATUS=reading the greylist store: 4200000 entries",
			"", // it hangs
		} {
			time.Sleep(startLook)
			synctest.Wait()
			if got := heard(); got != want {
				t.Errorf("after %d looks: %q, want %q", i+1, got, want)
			}
		}
		close(finish)
		if err := <-ended; !errors.Is(err, failed) {
			t.Errorf("ended with %v", err)
		}
	})
	if n := logs.Len(); n != 2 {
		t.Errorf("%d log lines, want 2: %v", n, logs.All())
	}
}

// SIGTERM ends a start at once. SIGHUP waits until the daemon serves.
func TestSignalsWhileStarting(t *testing.T) {
	p := newProcess(t)
	p.gate.building = make(chan struct{})
	go p.main()
	p.gate.building <- struct{}{} // Build has begun
	p.signals <- syscall.SIGHUP
	for len(p.signals) > 0 {
		runtime.Gosched()
	}
	p.gate.building <- struct{}{} // Build ends
	p.hears(t, "READY=1")
	p.hears(t, "RELOADING=1")
	p.gate.building <- struct{}{}
	p.gate.building <- struct{}{}
	p.hears(t, "READY=1")
	p.stop(t)

	p = newProcess(t)
	p.gate.building = make(chan struct{})
	go p.main()
	p.gate.building <- struct{}{}
	p.signals <- syscall.SIGTERM
	if status := <-p.status; status != daemon.ExitOK {
		t.Errorf("exit status %d\n%s", status, p.logged())
	}
	if !strings.Contains(p.logged(), "signal received") {
		t.Errorf("not logged: %s", p.logged())
	}
	if _, err := os.Lstat(p.path("sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	p.gate.building <- struct{}{} // the process would end it
}
