package postfixtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// DaemonConfig is how to start one of our daemons.
type DaemonConfig struct {
	Path  string // the binary, from Binaries.Path
	Args  []string
	Env   []string   // "NAME=value", added to PATH
	Files []*os.File // sockets, passed as systemd does (LISTEN_FDS)
	Copy  io.Writer  // also gets every line of the log; nil for none
}

// Daemon is a running daemon whose standard error is read as JSON lines.
type Daemon struct {
	process *process
	lines   *lines
	reading chan struct{} // closed at the end of standard error
	settled atomic.Bool   // a caller has asked for the end, or waited for it
}

// StartDaemon starts a daemon and returns when it sends READY=1 to its NOTIFY_SOCKET.
// ctx bounds the start only, which may take a minute. If the daemon ends earlier, the
// error wraps an *ExitError and includes the daemon's output.
func StartDaemon(ctx context.Context, c DaemonConfig) (*Daemon, error) {
	notify, err := newNotifySocket()
	if err != nil {
		return nil, err
	}
	defer notify.close()
	d := &Daemon{lines: newLines(), reading: make(chan struct{})}
	if err := d.start(c, notify.path); err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	err = notify.wait(ctx, d.process.done)
	if err == nil {
		return d, nil
	}
	d.process.kill()
	<-d.reading
	if errors.Is(err, errEnded) {
		err = &ExitError{Code: d.process.cmd.ProcessState.ExitCode()}
	}
	return nil, fmt.Errorf("start %s: %w\n%s", filepath.Base(c.Path), err, d.lines.tail())
}

// ExitError is the error for an unexpected exit code of a daemon.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return "exit status " + strconv.Itoa(e.Code) }

func (d *Daemon) start(c DaemonConfig, notifyPath string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := daemonCommand(c, notifyPath)
	cmd.Stdout, cmd.Stderr = w, w
	d.process, err = startProcess(cmd)
	if closed := w.Close(); err != nil || closed != nil {
		return errors.Join(err, closed, r.Close())
	}
	go func() {
		defer close(d.reading)
		d.lines.read(copied(r, c.Copy))
		_ = r.Close()
	}()
	return nil
}

func copied(r io.Reader, to io.Writer) io.Reader {
	if to == nil {
		return r
	}
	return io.TeeReader(r, to)
}

// daemonCommand passes sockets with a shell in between, because LISTEN_PID must be the
// pid of the process that gets them.
func daemonCommand(c DaemonConfig, notifyPath string) *exec.Cmd {
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET=" + notifyPath}, c.Env...)
	if len(c.Files) > 0 {
		cmd = exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, c.Path}, c.Args...)...)
		cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET=" + notifyPath,
			"LISTEN_FDS=" + strconv.Itoa(len(c.Files))}, c.Env...)
		cmd.ExtraFiles = c.Files
	}
	return cmd
}

// LogTail returns the end of the daemon's output; "" for a daemon that did not start.
func (d *Daemon) LogTail() string {
	if d == nil {
		return ""
	}
	return d.lines.tail()
}

// PID returns the process id.
func (d *Daemon) PID() int { return d.process.pid() }

// Signal sends sig.
func (d *Daemon) Signal(sig syscall.Signal) error { return d.process.signal(sig) }

// Stop sends SIGTERM and waits for the end. An exit code other than 0 is an error that
// includes the end of the daemon's output.
func (d *Daemon) Stop() error {
	d.settled.Store(true)
	err := d.process.stop()
	<-d.reading
	if err != nil {
		return fmt.Errorf("stop %s: %w\n%s", filepath.Base(d.process.cmd.Path), err, d.lines.tail())
	}
	return nil
}

// StopUnlessEnded is Stop for a clean-up. It does nothing if the caller has stopped or
// killed the daemon, or waited for its end.
func (d *Daemon) StopUnlessEnded() error {
	if d.settled.Load() {
		return nil
	}
	return d.Stop()
}

// Kill ends the daemon like a crash.
func (d *Daemon) Kill() {
	d.settled.Store(true)
	d.process.kill()
	<-d.reading
}

// Wait returns the exit code when the daemon has ended, or -1 if a signal ended it. It
// returns an error if ctx ends first, or after a minute.
func (d *Daemon) Wait(ctx context.Context) (int, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	select {
	case <-d.process.done:
		d.settled.Store(true)
		<-d.reading
		return d.process.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%s has not ended: %w", filepath.Base(d.process.cmd.Path), context.Cause(ctx))
	}
}

// notifySocket is the socket that sd_notify(3) writes to.
type notifySocket struct {
	dir, path string
	conn      *net.UnixConn
}

// maxNotify bounds one notification.
const maxNotify = 4 << 10

func newNotifySocket() (*notifySocket, error) {
	dir, err := os.MkdirTemp("", "postern-notify-")
	if err != nil {
		return nil, err
	}
	n := &notifySocket{dir: dir, path: filepath.Join(dir, "s")}
	n.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err == nil {
		// The socket must be accessible to a daemon that has given up root.
		err = errors.Join(os.Chmod(dir, 0o755), os.Chmod(n.path, 0o777))
	}
	if err != nil {
		n.close()
		return nil, fmt.Errorf("notify socket: %w", err)
	}
	return n, nil
}

func (n *notifySocket) close() {
	if n.conn != nil {
		_ = n.conn.Close()
	}
	_ = os.RemoveAll(n.dir)
}

// wait returns nil when READY=1 arrives, even if the daemon has ended since it sent this.
func (n *notifySocket) wait(ctx context.Context, ended <-chan struct{}) error {
	ready := make(chan error, 1)
	go func() { ready <- n.readReady() }()
	select {
	case err := <-ready:
		return err
	case <-ended:
		if err := n.end(); err != nil {
			return errors.Join(errEnded, err)
		}
		return <-ready
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// endMark is what we send when the daemon has ended. It is read after all that the daemon has sent.
const endMark = "X-ENDED=1"

func (n *notifySocket) end() error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte(endMark))
	return errors.Join(err, conn.Close())
}

// readReady returns at the latest when the socket is closed.
func (n *notifySocket) readReady() error {
	buf := make([]byte, maxNotify)
	for {
		size, err := n.conn.Read(buf)
		if err != nil {
			return fmt.Errorf("notify socket: %w", err)
		}
		for line := range strings.Lines(string(buf[:size])) {
			switch strings.TrimSpace(line) {
			case "READY=1":
				return nil
			case endMark:
				return errEnded
			}
		}
	}
}

// read reads all lines of r until its end.
func (l *lines) read(r io.Reader) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		l.add(s.Text())
	}
	if err := s.Err(); err != nil {
		l.add("postfixtest: the rest of the log is lost: " + err.Error())
		_, _ = io.Copy(io.Discard, r)
	}
	l.end()
}
