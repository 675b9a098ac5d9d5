package postfixtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestGuard asserts that a child ends with a parent that gets no chance to end
// it: the parent is this test, run again, that starts a child and is killed.
func TestGuard(t *testing.T) {
	if os.Getenv("POSTFIXTEST_PARENT") != "" {
		child := exec.Command("/bin/sh", "-c", "exec sleep 1000")
		child.Stdout = os.Stdout
		p, err := startProcess(child)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("guarded")
		<-p.done
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestGuard$")
	parent.Env = append(os.Environ(), "POSTFIXTEST_PARENT=1")
	parent.Stdout = w
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	// The child holds the pipe: its end is the child's end.
	if n, err := r.Read(make([]byte, 64)); !errors.Is(err, io.EOF) {
		t.Errorf("read %d bytes and %v: the child lives on", n, err)
	}
}

func TestStopReportsHowItEnded(t *testing.T) {
	tests := []struct {
		name, script string
		want         string // in the error; "" is none
	}{
		{"peacefully", `trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done`, ""},
		{"with a code", `trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done`, "exit status 3"},
		{"by the signal", `echo up; exec sleep 1000`, "terminated"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cmd := exec.Command("/bin/sh", "-c", test.script)
			out := newLines()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdout = w
			p, err := startProcess(cmd)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			go out.read(r)
			if _, err := out.wait(t.Context(), func(r Record) bool { return r.Raw == "up" }); err != nil {
				t.Fatal(err)
			}
			err = p.stop()
			if got := errorText(err); (test.want == "") != (err == nil) || !strings.Contains(got, test.want) {
				t.Errorf("stop says %q, want %q", got, test.want)
			}
			if err := p.signal(syscall.SIGHUP); err != nil {
				t.Errorf("a signal to an ended process: %v", err)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestStartProcessMissing(t *testing.T) {
	if _, err := startProcess(exec.Command("/nonexistent/program")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// A daemon in shell: READY=1 is sent by the only tool every Debian has for a
// datagram socket, perl.
const readyScript = `perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Type=>SOCK_DGRAM,Peer=>$ENV{NOTIFY_SOCKET})->send("STATUS=x\nREADY=1\n")'`

func daemonScript(t *testing.T, script string) DaemonConfig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return DaemonConfig{Path: path}
}

func TestDaemonRecords(t *testing.T) {
	c := daemonScript(t, `trap 'exit 0' TERM
echo 'not json' >&2
echo '{"level":"info","msg":"decision","sender":"a@x","check":"ownership","reason":"owned","steps":[{"check":"ownership","reason":"owned","detail":"hash:/m"}]}' >&2
echo '{"level":"info","msg":"decision","sender":"a@x","reason":"not_owned"}' >&2
`+readyScript+`
while :; do sleep 0.01; done`)
	d := NewDaemon(t, c)
	same := func(r Record) bool { return r.Sender == "a@x" }
	var reasons []string
	for range 2 {
		r, err := d.WaitRecord(t.Context(), same)
		if err != nil {
			t.Fatal(err)
		}
		reason, detail := r.Why()
		reasons = append(reasons, reason+" "+detail)
	}
	if got := strings.Join(reasons, ","); got != "owned hash:/m,not_owned " {
		t.Errorf("got %q", got)
	}
	if n := len(d.Records()); n != 2 {
		t.Errorf("%d records, want 2", n)
	}
	if _, err := d.WaitLine(t.Context(), func(r Record) bool { return r.Raw == "not json" }); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := d.WaitRecord(ctx, same); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third record: %v", err)
	}
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := d.WaitRecord(t.Context(), same); !errors.Is(err, errLogEnded) {
		t.Errorf("a record of an ended daemon: %v", err)
	}
}

func TestDaemonEndsBeforeReady(t *testing.T) {
	_, err := StartDaemon(t.Context(), daemonScript(t, `echo 'no such map' >&2; exit 78`))
	exit := new(ExitError)
	if !errors.As(err, &exit) || exit.Code != 78 || !strings.Contains(err.Error(), "no such map") {
		t.Errorf("got %v", err)
	}
}

func TestDaemonNeverReady(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := StartDaemon(ctx, daemonScript(t, `sleep 1000`)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestDaemonGetsSockets(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := daemonScript(t, `trap 'exit 0' TERM
[ "$LISTEN_PID" = $$ ] && echo "fds $LISTEN_FDS $(readlink /proc/$$/fd/3)" >&2
`+readyScript+`
while :; do sleep 0.01; done`)
	c.Files = []*os.File{f}
	d := NewDaemon(t, c)
	if _, err := d.WaitLine(t.Context(), func(r Record) bool { return r.Raw == "fds 1 /dev/null" }); err != nil {
		t.Error(err)
	}
}

func TestDaemonCrash(t *testing.T) {
	d := NewDaemon(t, daemonScript(t, readyScript+"\nexit 5"))
	code, err := d.Wait(t.Context())
	if code != 5 || err != nil {
		t.Errorf("ended with %d, %v", code, err)
	}
}
