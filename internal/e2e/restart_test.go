package e2e

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	control "github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/postfixtest"
)

// restartable is a daemon with all its sockets in one folder, and its successors.
type restartable struct {
	*postfixtest.Daemon
	dir    string
	config postfixtest.DaemonConfig
	client control.Client
}

func startRestartable(t *testing.T, program, config string, args ...string) *restartable {
	t.Helper()
	path, err := binaries.Path(t.Context(), program)
	if err != nil {
		t.Fatal(err)
	}
	r := &restartable{dir: openDir(t)}
	r.client = control.Client{Path: filepath.Join(r.dir, "admin"), Daemon: program}
	r.config = postfixtest.DaemonConfig{Path: path, Args: append([]string{
		"--admin", "unix:" + r.client.Path, "--metrics-listen", "unix:" + filepath.Join(r.dir, "metrics"), "--resolver", noDNS,
		"--config", filepath.Join(r.dir, "config"),
	}, args...)}
	replaceFile(t, filepath.Join(r.dir, "config"), config)
	if r.Daemon, err = postfixtest.StartDaemon(t.Context(), r.config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.end)
	return r
}

// pid is that of the process that answers now.
func (r *restartable) pid(t *testing.T) int {
	t.Helper()
	var info control.Info
	if err := r.client.Call(t.Context(), "version", nil, &info, nil); err != nil {
		t.Fatal(err)
	}
	return info.PID
}

// end stops the process that answers now, then the one that the test started:
// only the first end of them all closes the log.
func (r *restartable) end() {
	var info control.Info
	if r.client.Call(context.Background(), "version", nil, &info, nil) == nil {
		_ = syscall.Kill(info.PID, syscall.SIGKILL)
	}
	r.Kill()
}

// ended asserts that the first process has come to a good end. The successors
// end with it, as they write to the same log.
func (r *restartable) ended(t *testing.T) {
	t.Helper()
	if pid := r.pid(t); pid != r.PID() {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	if status, err := r.Wait(t.Context()); status != 0 || err != nil {
		t.Errorf("the first process ended with %d, %v", status, err)
	}
}

func (r *restartable) restart(t *testing.T) error {
	t.Helper()
	return r.client.Call(t.Context(), "restart", nil, nil, nil)
}

// smtpd asks one question after the other, as Postfix does: over a connection
// that it keeps, and that it dials again once when it finds it closed.
type smtpd struct {
	path string
	conn net.Conn
	read *bufio.Reader
}

func (s *smtpd) ask(sender string) (answer string, err error) {
	for range 2 {
		if s.conn == nil {
			if s.conn, err = net.Dial("unix", s.path); err != nil {
				return "", err // refused: Postfix would defer the mail
			}
			s.read = bufio.NewReader(s.conn)
		}
		_, err = fmt.Fprintf(s.conn, "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=203.0.113.7\nsender=%s\nrecipient=bob@home.example\n\n", sender)
		if err == nil {
			if answer, err = s.read.ReadString('\n'); err == nil {
				_, err = s.read.ReadString('\n')
				return answer, err
			}
		}
		s.conn.Close()
		s.conn = nil
	}
	return "", err
}

// startGreylisting starts a policyd that greylists, with its store in a folder and a
// client of it.
func startGreylisting(t *testing.T) (d *restartable, dir string, client *smtpd) {
	t.Helper()
	dir = openDir(t)
	path := filepath.Join(dir, "policy")
	d = startRestartable(t, "postern-policyd", greylistIn(filepath.Join(dir, "greylist.db")),
		"--listen", "unix:"+path, "--checks", "greylist", "--greylist-key", "network",
		"--greylist-allow-senders", "none", "--greylist-allow-clients", "none")
	return d, dir, &smtpd{path: path}
}

func greylistIn(path string) string { return fmt.Sprintf("greylist-store = \"sqlite:%s\"\n", path) }

// Restarts under load, by signal and by the command: no request goes without an
// answer, and the greylist knows what it knew.
func TestPolicydRestartsUnderLoad(t *testing.T) {
	t.Parallel()
	d, _, known := startGreylisting(t)
	if answer, err := known.ask("known@example.org"); err != nil || !strings.Contains(answer, "Greylisted") {
		t.Fatal(answer, err)
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	for n := range 4 {
		load.Go(func() {
			s := &smtpd{path: known.path}
			pace := time.NewTicker(2 * time.Millisecond) // the machine has other work too
			defer pace.Stop()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-pace.C:
				}
				if answer, err := s.ask(fmt.Sprintf("s%d.%d@example.org", n, i%20)); err != nil || !strings.HasPrefix(answer, "action=DEFER_IF_PERMIT") {
					t.Errorf("request %d of client %d: %q, %v", i, n, answer, err)
					return
				}
			}
		})
	}
	seen := map[int]bool{d.pid(t): true}
	for range 5 {
		if err := d.restart(t); err != nil {
			t.Fatal(err)
		}
		pid := d.pid(t)
		if seen[pid] {
			t.Errorf("process %d answers again", pid)
		}
		seen[pid] = true
	}
	close(stop)
	load.Wait()
	if _, err := known.ask("known@example.org"); err != nil {
		t.Fatal(err)
	}
	var found any
	show := map[string]any{"client": "203.0.113.7", "sender": "known@example.org", "recipient": "bob@home.example"}
	if err := d.client.Call(t.Context(), "greylist.show", show, &found, nil); err != nil || !strings.Contains(fmt.Sprint(found), "greylist_early") {
		t.Errorf("the greylist has forgotten: %v, %v", found, err)
	}
	d.ended(t)
}

// A successor that fails leaves the old process serving: a mistake is found
// before anything is interrupted, another one when the store has been let go of.
func TestRestartThatFails(t *testing.T) {
	t.Parallel()
	d, dir, client := startGreylisting(t)
	pid := d.pid(t)
	other := filepath.Join(dir, "other.db")
	held, err := os.Create(other)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := syscall.Flock(int(held.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ config, want string }{
		{"log-levle = \"info\"\n", "log-levle"},
		{greylistIn(other), "another process uses it"},
		{greylistIn(filepath.Join(dir, "third.db")), ""},
	} {
		replaceFile(t, filepath.Join(d.dir, "config"), tt.config)
		err := d.restart(t)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.config, err)
		}
		if answer, err := client.ask("a@example.org"); err != nil || !strings.Contains(answer, "Greylisted") {
			t.Errorf("%s: %q, %v", tt.config, answer, err)
		}
		if now := d.pid(t); (now == pid) != (tt.want != "") {
			t.Errorf("%s: process %d after %d", tt.config, now, pid)
		}
	}
}

// milterSession negotiates, as smtpd does when its own session begins.
func milterSession(path string) (net.Conn, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	return conn, negotiateMilter(conn)
}

func negotiateMilter(conn net.Conn) error {
	offer := binary.BigEndian.AppendUint32(nil, 13)
	offer = append(offer, 'O')
	for _, n := range []uint32{6, 0x1ff, 0x1fffff} {
		offer = binary.BigEndian.AppendUint32(offer, n)
	}
	if _, err := conn.Write(offer); err != nil {
		return err
	}
	return readFrame(conn, 'O')
}

func readFrame(conn net.Conn, want byte) error {
	var head [5]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	if head[4] != want {
		return fmt.Errorf("answer %q", head[4])
	}
	_, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head[:4]))-1)
	return err
}

// mailFrom begins a message in a session, which is answered as long as the
// session lives.
func mailFrom(conn net.Conn) error {
	arg := "<alice@home.example>\x00"
	frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(arg)+1)), 'M')
	if _, err := conn.Write(append(frame, arg...)); err != nil {
		return err
	}
	return readFrame(conn, 'c')
}

// startVerifying starts a milterd for other people's mail on a unix socket.
func startVerifying(t *testing.T) (d *restartable, path string) {
	t.Helper()
	path = filepath.Join(openDir(t), "verify")
	return startRestartable(t, "postern-milterd", "", "--listen-verify", "unix:"+path), path
}

// openSession is milterSession for a session that ends with the test.
func openSession(t *testing.T, path string) net.Conn {
	t.Helper()
	session, err := milterSession(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	return session
}

// A milterd that stops keeps its sessions and its sockets until a successor
// comes, started by hand: who connects meanwhile waits, and is not refused.
func TestMilterdIsTakenOver(t *testing.T) {
	t.Parallel()
	d, path := startVerifying(t)
	session := openSession(t, path)
	if err := d.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := d.WaitLine(t.Context(), func(r postfixtest.Record) bool { return r.Message == "signal received" }); err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal("refused while the daemon stops: ", err)
	}
	defer waiting.Close()
	next, err := postfixtest.StartDaemon(t.Context(), d.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = next.StopUnlessEnded() })
	if err := negotiateMilter(waiting); err != nil {
		t.Error("the one that waited: ", err)
	}
	if pid := d.pid(t); pid != next.PID() {
		t.Errorf("process %d has the admin socket, not %d", pid, next.PID())
	}
	if err := mailFrom(session); err != nil {
		t.Error("the old session: ", err)
	}
	session.Close()
	if status, err := d.Wait(t.Context()); status != 0 || err != nil {
		t.Errorf("the old process ended with %d, %v", status, err)
	}
	for _, name := range []string{path, d.client.Path} {
		if _, err := os.Stat(name); err != nil {
			t.Error("the old process removed a socket: ", err)
		}
	}
	waiting.Close()
	if err := next.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("the successor left its socket: ", err)
	}
}

// restartedUnder restarts a milterd while a session is open, which the old process still
// serves.
func (r *restartable) restartedUnder(t *testing.T, path string) net.Conn {
	t.Helper()
	session := openSession(t, path)
	old := r.pid(t)
	if err := r.restart(t); err != nil {
		t.Fatal(err)
	}
	if pid := r.pid(t); pid == old {
		t.Errorf("process %d still answers", pid)
	}
	if err := mailFrom(session); err != nil {
		t.Error("the old session: ", err)
	}
	return session
}

// milterd restarts while sessions go on: the old process serves them to their
// end, the new one the others.
func TestMilterdRestarts(t *testing.T) {
	t.Parallel()
	d, path := startVerifying(t)
	session := d.restartedUnder(t, path)
	fresh := openSession(t, path)
	if err := mailFrom(fresh); err != nil {
		t.Error("a new session: ", err)
	}
	session.Close()
	fresh.Close()
	d.ended(t)
}

// milterd restarts although it keeps the results of DMARC in a file, which the old process
// needs until its sessions end.
func TestMilterdRestartsWithReports(t *testing.T) {
	t.Parallel()
	path := filepath.Join(openDir(t), "verify")
	store := filepath.Join(openDir(t), "reports.db")
	d := startRestartable(t, "postern-milterd", "", "--listen-verify", "unix:"+path, "--report-store", "sqlite:"+store)
	session := d.restartedUnder(t, path)
	line := func(text string) {
		t.Helper()
		if _, err := d.WaitLine(t.Context(), func(r postfixtest.Record) bool { return strings.HasPrefix(r.Message, text) }); err != nil {
			t.Fatal(text, err)
		}
	}
	line("the process that this one replaces has the file of DMARC reports")
	session.Close()
	line("the file of DMARC reports is written again")
	d.ended(t)
}

// A second daemon beside one that runs gets nothing from it.
func TestRunningDaemonGivesNothingUp(t *testing.T) {
	t.Parallel()
	d, path := startVerifying(t)
	second, err := postfixtest.StartDaemon(t.Context(), d.config)
	if exit := (*postfixtest.ExitError)(nil); !errors.As(err, &exit) || exit.Code != 75 || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v, %v", second, err)
	}
	session := openSession(t, path)
	if err := mailFrom(session); err != nil {
		t.Error(err)
	}
}
