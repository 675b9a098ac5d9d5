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

// A daemon is replaced in one of two ways. Asked to restart (SIGUSR2, "postern
// restart"), it starts its successor itself and goes on when that fails. Told to
// stop while sessions of Postfix go on, it keeps its sockets open for a while:
// who connects waits, and a successor that is started by hand asks for them over
// the admin socket. In both the predecessor never removes a socket that the
// successor has.

const (
	// holdFor is how long sockets stay open while the sessions of a daemon that
	// stops come to their end. Postfix waits 30 s for a milter's first word.
	holdFor = 20 * time.Second
	// lingerFor is how long the sessions of a daemon that was replaced are left alone.
	// No one waits for its end.
	lingerFor = 10 * time.Minute
	// restartTimeout is how long a successor may take until it serves.
	restartTimeout = 3 * time.Minute
	// commandHandover is what a successor asks the admin socket for.
	commandHandover = "handover"
	// maxComplaint bounds what is repeated of a successor's complaint.
	maxComplaint = 4 << 10
)

// relay is the state of handing over.
type relay struct {
	building sync.Mutex // held while a state is built, or let go of for a successor

	mu        sync.Mutex
	listeners []daemon.Listener
	busy      bool               // a successor is on its way
	life      context.Context    // of the daemon: done when it stops
	paused    bool               // nothing is accepted until the successor serves, or failed
	stop      context.CancelFunc // ends the accepting that goes on
	drained   chan struct{}      // one token when a pause has drained
	resume    chan struct{}      // one token when the successor failed
	gone      chan struct{}      // closed when the successor serves
	hurried   chan struct{}      // closed when the sessions that are left shall end
	hurryOnce sync.Once
}

func newRelay(listeners []daemon.Listener) *relay {
	return &relay{
		listeners: listeners, life: context.Background(),
		drained: make(chan struct{}, 1), resume: make(chan struct{}, 1), gone: make(chan struct{}),
		hurried: make(chan struct{}),
	}
}

// begin reports whether a successor may come now. end is called when it has
// failed.
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

// leave gives up all sockets: the successor serves them.
func (r *relay) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.gone)
	for _, l := range r.listeners {
		_ = l.Abandon()
	}
}

// hurry ends the time for which sessions are left alone.
func (r *relay) hurry() { r.hurryOnce.Do(func() { close(r.hurried) }) }

// closeAll closes the sockets at the end, or some of them before.
func (r *relay) closeAll(these []daemon.Listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isGone() {
		closeAll(these)
	}
}

// keeps reports whether a socket that is no longer accepted from stays open.
func (r *relay) keeps(s daemon.Socket, sessions bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused {
		return true
	}
	return r.life.Err() != nil && sessions && s.Network != daemon.NetworkSystemd && !aside(s)
}

// serving notes how the accepting that begins now is ended.
func (r *relay) serving(stop context.CancelFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stop = stop
}

// pause ends the accepting and waits until what was accepted has drained.
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

// unpause has the accepting begin again.
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

// begins notes the daemon's life when it begins to serve.
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

// handOver leads one successor through. It returns nil when it serves. When it
// has failed the daemon serves as before, except that in a pause its state has
// to be built again: see [running.takeBack].
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

// release lets go of what only one process can hold: a store's file. Sessions
// need the state to their end, and hold nothing of that kind.
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

// linger returns what ends the time for which the sessions of a daemon that was
// replaced are left alone; nil when it was not, or has none.
func (d *running[S]) linger() <-chan struct{} {
	if !d.traffic.Sessions || !d.relay.isGone() {
		return nil
	}
	time.AfterFunc(lingerFor, d.relay.hurry)
	return d.relay.hurried
}

// takeBack puts the state in force again that was let go of for a successor
// which has failed.
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
	_ = child.Process.Kill() // it has failed, or shall not come any more
	_ = child.Wait()
	d.takeBack(life)
	return err
}

// checkSuccessor finds most mistakes before anything is interrupted.
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
	// As files, so that they live on when this process has ended.
	cmd.Stdout, _ = d.process.Stdout.(*os.File)
	cmd.Stderr, _ = d.process.Stderr.(*os.File)
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return cmd, conn.(*net.UnixConn), nil
}

// successorEnviron leaves out what the service manager meant for this process
// alone.
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

// commandRestart is "postern restart": the main loop restarts, and the answer
// says how that went.
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

// takenOver answers a successor that was started by someone else, while this
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

// predecessor is the daemon whose place this process takes, nil for none: the
// one that started it, or one that stops and still has the sockets.
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
		return nil // what is in the way is something else
	}
	return p
}
