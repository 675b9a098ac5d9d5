package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/daemon"
)

// A daemon is replaced in one of two ways. When it is asked to restart (SIGUSR2,
// "postern restart"), it starts its successor itself, and goes on when that
// fails. When it is asked to stop while sessions of Postfix are open, it keeps
// its sockets open for a while: clients that connect wait, and a successor that
// is started by hand asks for the sockets over the admin socket. In both cases
// the predecessor never removes a socket that the successor has.

const (
	// holdFor is how long sockets stay open while a daemon that stops waits for
	// its sessions. Postfix waits 30 s for the first answer of a milter.
	holdFor = 20 * time.Second
	// lingerFor is how long a daemon that was replaced waits for its sessions to
	// end. Nothing waits for its own end.
	lingerFor = 10 * time.Minute
	// restartTimeout is how long a successor may take until it serves.
	restartTimeout = 3 * time.Minute
	// commandHandover is what a successor asks the admin socket for.
	commandHandover = "handover"
	// maxComplaint bounds how much of a successor's error output is repeated, in
	// bytes.
	maxComplaint = 4 << 10
)

// relay is the state of a handover.
type relay struct {
	building sync.Mutex // held while a state is built, or closed for a successor

	mu        sync.Mutex
	listeners []daemon.Listener
	busy      bool               // a successor is starting
	life      context.Context    // of the daemon: done when it stops
	paused    bool               // nothing is accepted until the successor serves, or failed
	stop      context.CancelFunc // ends the accepting that goes on
	drained   chan struct{}      // one token when a pause has drained
	resume    chan struct{}      // one token when the successor failed
	gone      chan struct{}      // closed when the successor serves
	hurried   chan struct{}      // closed when the remaining sessions must end
	hurryOnce sync.Once
}

func newRelay(listeners []daemon.Listener) *relay {
	return &relay{
		listeners: listeners, life: context.Background(),
		drained: make(chan struct{}, 1), resume: make(chan struct{}, 1), gone: make(chan struct{}),
		hurried: make(chan struct{}),
	}
}

// begin returns nil when a successor may start now. The caller calls end when the
// successor has failed.
func (r *relay) begin(stopping bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.busy, r.isGone():
		return errors.New("a successor is on its way already")
	case stopping && r.life.Err() == nil:
		return errors.New("the daemon is running; ask it with `postern restart`, or send SIGUSR2")
	case !stopping && r.life.Err() != nil:
		return errors.New("the daemon is stopping")
	}
	r.busy = true
	return nil
}

func (r *relay) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy = false
}

func (r *relay) isGone() bool {
	select {
	case <-r.gone:
		return true
	default:
		return false
	}
}

// leave closes all sockets without removing their paths: the successor serves
// them.
func (r *relay) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.gone)
	for _, l := range r.listeners {
		_ = l.Abandon()
	}
}

// hurry ends the time of lingerFor.
func (r *relay) hurry() { r.hurryOnce.Do(func() { close(r.hurried) }) }

// closeAll closes these sockets.
func (r *relay) closeAll(these []daemon.Listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isGone() {
		closeAll(these)
	}
}

// keeps reports whether a socket stays open while no connections are accepted
// from it.
func (r *relay) keeps(s daemon.Socket, sessions bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused {
		return true
	}
	return r.life.Err() != nil && sessions && s.Network != daemon.NetworkSystemd && !aside(s)
}

// serving stores the function that ends the accepting that begins now.
func (r *relay) serving(stop context.CancelFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop = stop
}

// pause ends the accepting and waits until the accepted connections have drained.
func (r *relay) pause(ctx context.Context) error {
	r.mu.Lock()
	r.paused = true
	stop := r.stop
	r.mu.Unlock()
	stop()
	select {
	case <-r.drained:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *relay) isPaused() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paused
}

// unpause starts the accepting again.
func (r *relay) unpause() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.paused = false
	signalOnce(r.resume)
}

// waitPaused is called when a pause has drained. It reports whether to accept
// again.
func (r *relay) waitPaused(ctx context.Context) bool {
	signalOnce(r.drained)
	select {
	case <-r.resume:
		return true
	case <-r.gone:
		return false
	case <-ctx.Done():
		return false
	}
}

// begins stores the context of the daemon's life when the daemon begins to serve.
func (r *relay) begins(life context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.life = life
}

func signalOnce(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// handOver hands over to one successor, and returns nil when the successor
// serves. When the successor has failed, the daemon serves as before. After a
// pause its state has to be built again: see [running.takeBack].
func (d *running[S]) handOver(ctx context.Context, conn *net.UnixConn, pid int) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	return daemon.HandOver(conn, d.relay.listeners,
		func() error { return d.release(ctx) },
		func() error {
			if err := d.process.Notifier.MainPID(pid); err != nil {
				d.report(daemon.Event{Kind: daemon.NotifyFailed, Err: err})
			}
			d.relay.leave()
			return nil
		})
}

// release closes what only one process can hold: the file of a store. A daemon
// with sessions keeps its state, because they need it to their end: its successor waits
// for such files, see Runtime.Succeeds.
func (d *running[S]) release(ctx context.Context) error {
	if d.traffic.Sessions {
		return nil
	}
	d.relay.building.Lock()
	if err := d.relay.pause(ctx); err != nil {
		return err
	}
	d.lossy.Store(false)
	if d.current.Close(); d.lossy.Load() {
		return errors.New("the state was not closed as it should be, see the log")
	}
	return nil
}

// linger returns a channel that is closed when a daemon that was replaced stops
// waiting for its sessions. It is nil when the daemon was not replaced, or has no
// sessions.
func (d *running[S]) linger() <-chan struct{} {
	if !d.traffic.Sessions || !d.relay.isGone() {
		return nil
	}
	time.AfterFunc(lingerFor, d.relay.hurry)
	return d.relay.hurried
}

// takeBack builds the state again that was closed for a successor which has
// failed, and puts it in force.
func (d *running[S]) takeBack(ctx context.Context) {
	if !d.relay.isPaused() {
		return
	}
	defer d.relay.building.Unlock()
	wait := 100 * time.Millisecond
	for ctx.Err() == nil {
		_, err := d.build(d.latest)
		if err == nil {
			d.relay.unpause()
			return
		}
		d.log.Logger().Error("cannot go on after a restart that failed, trying again", zap.Error(err))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait = min(2*wait, 5*time.Second)
	}
}

// restart starts a successor and returns when it serves, or why it does not.
func (d *running[S]) restart(life context.Context) error {
	if err := d.relay.begin(false); err != nil {
		return err
	}
	defer d.relay.end()
	if os.Getpid() == 1 {
		return errors.New("process 1 cannot be replaced; restart the container")
	}
	if d.process.Executable == "" {
		return errors.New("the program's path is not known")
	}
	ctx, cancel := context.WithTimeout(life, restartTimeout)
	defer cancel()
	if err := d.checkSuccessor(ctx); err != nil {
		return err
	}
	child, conn, err := d.startSuccessor()
	if err != nil {
		return err
	}
	defer conn.Close()
	err = d.handOver(ctx, conn, child.Process.Pid)
	if d.relay.isGone() {
		go func() { _ = child.Wait() }() // ends with the successor, or with this process
		return nil
	}
	_ = child.Process.Kill() // it has failed, or is no longer wanted
	_ = child.Wait()
	d.takeBack(life)
	return err
}

// checkSuccessor runs the new program with --check-config. This finds most
// mistakes before anything is interrupted.
func (d *running[S]) checkSuccessor(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, d.process.Executable, append(append([]string(nil), d.process.Args...), "--check-config")...)
	cmd.Env = d.successorEnviron()
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(complaint.String())
		return fmt.Errorf("%w: %s", err, text[:min(len(text), maxComplaint)])
	}
	return nil
}

func (d *running[S]) startSuccessor() (*exec.Cmd, *net.UnixConn, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "handover"), os.NewFile(uintptr(pair[1]), "handover")
	defer ours.Close() // net.FileConn makes a duplicate
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(d.process.Executable, d.process.Args...)
	cmd.Env = append(d.successorEnviron(), daemon.HandoverVariable+"=3")
	cmd.ExtraFiles = []*os.File{theirs}
	// They are passed as files, so that they stay usable when this process has
	// ended.
	cmd.Stdout, _ = d.process.Stdout.(*os.File)
	cmd.Stderr, _ = d.process.Stderr.(*os.File)
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return cmd, conn.(*net.UnixConn), nil
}

// successorEnviron returns the environment without the variables that the service
// manager set for this process alone.
func (d *running[S]) successorEnviron() []string {
	var environ []string
	for _, entry := range d.process.Environ {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", daemon.HandoverVariable:
		default:
			environ = append(environ, entry)
		}
	}
	return environ
}

// commandRestart answers "postern restart": the main loop restarts the daemon,
// and the answer is the outcome.
func (d *running[S]) commandRestart(ctx context.Context, _ json.RawMessage, _ func(any)) (any, error) {
	outcome := make(chan error, 1)
	select {
	case d.restarts <- outcome:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case err := <-outcome:
		if err != nil {
			return nil, &admin.Error{Code: admin.CodeFailed, Message: err.Error()}
		}
		return true, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// takenOver answers a successor that this process did not start, while this
// process stops.
func (d *running[S]) takenOver(ctx context.Context, conn *net.UnixConn) {
	uid, err := daemon.PeerUser(conn)
	if err == nil && uid != 0 && uid != os.Geteuid() {
		err = errors.New("only root and the daemon's own user may take over")
	}
	if err == nil && !d.traffic.Sessions {
		err = errors.New("the daemon is stopping or runs; start again when it has ended, or ask it with `postern restart`")
	}
	if err == nil {
		err = d.relay.begin(true)
	}
	if greetErr := daemon.Greet(conn); greetErr != nil {
		if err == nil {
			d.relay.end()
		}
		return
	}
	if err != nil {
		daemon.RefuseHandOver(conn, err.Error())
		return
	}
	defer d.relay.end()
	if err := d.handOver(ctx, conn, 0); err != nil && !d.relay.isGone() {
		d.log.Logger().Error("a successor took the sockets over and failed", zap.Error(err))
		return
	}
	d.log.Logger().Info("a successor serves, sessions that are open come to their end here")
}

// predecessor returns the daemon that this process replaces, or nil for none. It
// is the daemon that started this process, or one that is stopping and still has
// the sockets.
func (d *running[S]) predecessor(bindErr error) *daemon.Predecessor {
	endpoint, err := daemon.ParseEndpoint(d.settings.Common().Admin, d.settings.Common().QueueDirectory)
	if !errors.Is(bindErr, syscall.EADDRINUSE) || err != nil || endpoint.Network != daemon.NetworkUnix {
		return nil
	}
	users := []int{os.Geteuid()}
	if id, err := identity(d.settings); err == nil && id != nil {
		users = append(users, id.UID)
	}
	p, err := daemon.AskPredecessor(endpoint.Address, admin.Line(commandHandover), users...)
	if err != nil {
		return nil // something else uses the address
	}
	return p
}
