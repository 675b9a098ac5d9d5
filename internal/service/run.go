package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/logging"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/status"
)

// running is a daemon between its start and its end. A reload runs at the same
// time as everything else. It replaces the state in force, the log's level and
// the watcher's files, and nothing else.
type running[S any] struct {
	app      App[S]
	process  Process
	settings Settings[S] // with which the daemon was started; they count for what is fixed
	latest   Settings[S] // from which the state in force was built

	listeners []daemon.Listener
	log       *logging.Log
	metrics   *metrics.Metrics
	readiness metrics.Readiness
	reading   reading         // of stores
	held      []os.Signal     // that came while the daemon started
	watcher   *config.Watcher // nil when files cannot be watched
	traffic   Traffic
	overflow  daemon.Overflow
	recent    *recent
	page      *status.Server // nil when there is none
	relay     *relay
	self      atomic.Pointer[daemon.Self] // nil while nothing is accepted
	restarts  chan chan<- error           // requests from the admin socket
	current   Current[S]
	inForce   atomic.Pointer[config.Set]
	refused   atomic.Pointer[string] // why the last reload was refused; nil when it was not
	lossy     atomic.Bool            // closing something failed
	causes    chan string            // of the next reload; one may wait
	again     *time.Timer            // for files that were not fit to be read
}

// run returns an error for the operator when the daemon could not start to serve.
func (d *running[S]) run() (status int, err error) {
	memory := daemon.TuneMemory()
	listeners, err := d.bind()
	if err != nil {
		return 0, err
	}
	d.listeners = listeners
	d.relay = newRelay(listeners)
	serves := false
	defer func() {
		if serves {
			d.relay.closeAll(listeners)
		} else {
			d.giveUp(listeners)
		}
	}()
	if d.log, err = d.openLog(); err != nil {
		return 0, err
	}
	defer d.log.Close()
	defer d.log.RedirectStdlog()()
	d.metrics = metrics.New(metrics.Options{
		Daemon:      d.app.Daemon(),
		Version:     Version(),
		Revision:    revision(),
		LogFailures: d.log.Failures,
		LogBlocked:  d.log.Blocked,
		ConnsClosed: d.overflow.Closed.Load, ConnsRefused: d.overflow.Refused.Load,
	})
	started := time.Now()
	if err := d.openPage(started, of(listeners, flagStatus)); err != nil {
		return 0, err
	}
	if d.process.Predecessor != nil {
		if err := d.process.Predecessor.Release(); err != nil {
			return 0, err
		}
	}
	life, err := d.start()
	if errors.Is(err, errStopped) {
		return daemon.ExitOK, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { status = max(status, d.end()) }()
	debug.FreeOSMemory() // reading a store leaves garbage of the store's size
	d.traffic = d.app.Start(d.runtime(), &d.current)
	d.metrics.Reloaded(time.Now(), nil)
	d.settled(d.settings.Set())
	if d.watcher, err = config.NewWatcher(d.watchFailed); err != nil {
		d.watchFailed(err)
	} else {
		defer d.watcher.Close()
	}
	d.watch(started, life.Files())
	d.lookAgain(life.again)
	defer d.lookAgain(0)
	d.log.Logger().Info("started",
		zap.String("version", Version()),
		zap.Stringers("listen", addresses(listeners)),
		zap.Int("gc_percent", memory.GCPercent),
		zap.Int64("memory_limit", memory.Limit))
	if memory.Small() {
		d.log.Logger().Warn("the memory limit is less than the daemon may need, and the kernel may end it; set MemoryMax= of its unit, or the limit of the container, to 192M or more")
	}
	if d.process.Predecessor != nil {
		if err := d.process.Predecessor.Serving(); err != nil {
			d.log.Logger().Warn("the predecessor did not say that it has left; it may still be there", zap.Error(err))
		}
	}
	serves = true
	return d.serve(listeners)
}

// start builds the first state.
func (d *running[S]) start() (*Life, error) {
	s := starting{signals: d.process.Signals, notifier: d.process.Notifier, reading: &d.reading, log: d.log.Logger(), report: d.report}
	var built *Life
	err := s.wait(func() (err error) {
		built, err = d.build(d.settings)
		return err
	})
	if err != nil {
		return nil, err
	}
	d.held = s.held
	return built, nil
}

// giveUp closes the sockets after a failed start. Those of the predecessor stay
// open.
func (d *running[S]) giveUp(listeners []daemon.Listener) {
	for _, l := range d.process.Predecessor.Inherited(listeners) {
		_ = l.Abandon()
	}
	closeAll(listeners)
}

// build builds a state from settings and puts it in force.
func (d *running[S]) build(settings Settings[S]) (*Life, error) {
	life := d.current.NewLife(d.notClosed)
	state, err := settings.Build(life, d.runtime())
	if err == nil {
		err = d.log.SetLevel(settings.Common().LogLevel)
	}
	if err != nil {
		life.Discard()
		return nil, err
	}
	d.current.Apply(state, life)
	return life, nil
}

// end closes the state in force. Stores then write what they still hold.
func (d *running[S]) end() (status int) {
	d.lossy.Store(false)
	if d.current.Close(); d.lossy.Load() {
		return daemon.ExitFailed
	}
	return daemon.ExitOK
}

// notClosed logs an error of closing a state.
func (d *running[S]) notClosed(err error) {
	d.lossy.Store(true)
	d.log.Logger().Error("not closed as it should be: what it had not written is lost", zap.Error(err))
}

func (d *running[S]) runtime() Runtime {
	r := NewRuntime(d.log.Logger(), d.metrics)
	r.Readiness, r.Reload, r.Reading = &d.readiness, d.askReload, d.reading.read
	r.Succeeds = d.process.Predecessor != nil
	// What shows a record comes after what counts it, and the log is last.
	sinks := record.Sinks{d.recent, r.Records}
	if d.page != nil {
		sinks = append(record.Sinks{d.page}, sinks...)
	}
	r.Records = sinks
	return r
}

// askReload asks for a reload with a cause, unless one waits already.
func (d *running[S]) askReload(cause string) {
	select {
	case d.causes <- cause:
	default:
	}
}

// lookAgain asks for a reload after a time; 0 means that none must follow.
func (d *running[S]) lookAgain(after time.Duration) {
	if d.again != nil {
		d.again.Stop()
		d.again = nil
	}
	if after > 0 {
		d.again = time.AfterFunc(after, func() { d.askReload("a file may be complete now") })
	}
}

// bind binds every socket and gives up root.
func (d *running[S]) bind() ([]daemon.Listener, error) {
	all, err := sockets(d.settings)
	if err != nil {
		return nil, err
	}
	identity, err := identity(d.settings)
	if err != nil {
		return nil, err
	}
	for _, socket := range all {
		if socket.Flag == flagAdmin || socket.Flag == flagStatus {
			daemon.MakeFolder(socket.Endpoint, identity)
		}
	}
	listeners, err := daemon.ListenAfter(d.process.Predecessor, all)
	if err != nil && d.process.Predecessor == nil {
		if d.process.Predecessor = d.predecessor(err); d.process.Predecessor != nil {
			listeners, err = daemon.ListenAfter(d.process.Predecessor, all)
		}
	}
	if err != nil || identity == nil {
		return listeners, err
	}
	if err := identity.Become(); err != nil {
		d.giveUp(listeners)
		return nil, d.settings.Set().Errorf("user", "%w", err)
	}
	return listeners, nil
}

// logBatch is how long a record may wait for others. At a thousand requests a
// second, writing each record alone costs as much as answering the requests.
const logBatch = 10 * time.Millisecond

func (d *running[S]) openLog() (*logging.Log, error) {
	c := d.settings.Common()
	log, err := logging.Open(logging.Options{Format: c.LogFormat, Path: c.LogFile, Level: c.LogLevel, Err: d.process.Stderr, Batch: logBatch})
	if err != nil {
		return nil, d.settings.Set().Errorf("log-file", "%w", err)
	}
	return log, nil
}

// serve answers on all listeners until a signal ends it.
func (d *running[S]) serve(listeners []daemon.Listener) (int, error) {
	adminServer, err := admin.New(d.commands(), admin.Options{
		Daemon: d.app.Name(), Version: Version(), Report: d.report,
		Takes: map[string]func(context.Context, *net.UnixConn){commandHandover: d.takenOver},
	})
	if err != nil {
		return 0, err
	}
	metricsServer := metrics.NewServer(d.metrics, &d.readiness, zap.NewStdLog(d.log.Logger()))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	return daemon.Run(ctx, daemon.RunOptions{
		Signals:      d.process.Signals,
		Held:         d.held,
		Changes:      d.changes(ctx),
		Serve:        func(ctx context.Context) error { return d.serveAll(ctx, listeners, adminServer, metricsServer) },
		Reload:       d.reload,
		ReopenLogs:   d.log.Reopen,
		Restart:      d.restart,
		Restarts:     d.restarts,
		Hurry:        d.relay.hurry,
		Alive:        d.alive,
		Notifier:     d.process.Notifier,
		DrainTimeout: d.settings.Common().DrainTimeout,
		Report:       d.report,
	}), nil
}

// serveAll returns when all servers have ended. The traffic drains first, so that
// metrics and admin answer until it has drained, unless a successor has their
// sockets.
func (d *running[S]) serveAll(ctx context.Context, all []daemon.Listener, adminServer *admin.Server, metricsServer *metrics.Server) error {
	leased := daemon.Lease(all, d.keeps)
	admins := of(leased, flagAdmin)
	aside, stopAside := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAside()
	var group errgroup.Group
	for _, l := range of(leased, flagMetrics) {
		group.Go(func() error { return metricsServer.Serve(l) })
	}
	for _, l := range of(leased, flagStatus) {
		group.Go(func() error { return d.page.Serve(l) })
	}
	if len(admins) > 0 {
		group.Go(func() error { return adminServer.Serve(aside, admins) })
	}
	d.readiness.Serving()
	stop := context.AfterFunc(ctx, d.readiness.Draining)
	defer stop()
	endAside := sync.OnceValue(func() error {
		close(d.recent.leaving)
		stopAside()
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), metricsGrace)
		defer cancel()
		return errors.Join(d.closePage(bound), metricsServer.Shutdown(bound))
	})
	group.Go(func() error {
		select {
		case <-d.relay.gone:
			return endAside()
		case <-aside.Done():
			return nil
		}
	})
	err := d.serveTraffic(ctx, all, ofPostfix(leased))
	return errors.Join(err, endAside(), group.Wait())
}

// serveTraffic serves until ctx is done, or until a successor serves. While a
// successor starts that needs what this process holds, no connections are
// accepted.
func (d *running[S]) serveTraffic(ctx context.Context, all, traffic []daemon.Listener) error {
	d.relay.begins(ctx)
	ended := make(chan struct{})
	defer close(ended)
	go d.hold(ctx, all, ended)
	for {
		serving, stop := context.WithCancel(ctx)
		d.relay.serving(stop)
		self := daemon.NewSelf()
		d.self.Store(self)
		err := daemon.Serve(serving, append(traffic, self.Listener()), d.serveOptions())
		d.self.Store(nil)
		stop()
		if err != nil || ctx.Err() != nil || !d.relay.isPaused() || !d.relay.waitPaused(ctx) {
			return err
		}
		traffic = ofPostfix(daemon.Lease(all, d.keeps))
	}
}

// hold closes the sockets of a daemon that stops, when no successor has asked for
// them within holdFor.
func (d *running[S]) hold(ctx context.Context, all []daemon.Listener, ended <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-ended:
		return
	}
	timer := time.NewTimer(holdFor)
	defer timer.Stop()
	select {
	case <-timer.C:
		d.relay.closeAll(ofPostfix(all))
	case <-ended:
	}
}

// keeps reports whether a socket stays open while no connections are accepted
// from it.
func (d *running[S]) keeps(s daemon.Socket) bool { return d.relay.keeps(s, d.traffic.Sessions) }

// serveOptions returns the options for the connections of Postfix.
func (d *running[S]) serveOptions() daemon.ServeOptions {
	c := d.settings.Common()
	o := daemon.ServeOptions{
		Handler:      d.connection,
		MaxConns:     c.MaxConns,
		MaxHostConns: c.MaxHostConns,
		WhenFull:     daemon.CloseIdle,
		Overflow:     &d.overflow,
		Linger:       d.linger,
		DrainTimeout: c.DrainTimeout,
		Report:       d.report,
	}
	if d.traffic.Sessions {
		o.WhenFull = daemon.Refuse
	}
	if room := daemon.RoomForConns(); room < o.MaxConns {
		d.log.Logger().Warn("the process may not open as many files as max-connections needs; raise LimitNOFILE= or ulimit -n",
			zap.Int("max_connections", o.MaxConns), zap.Int("connections", room))
		o.MaxConns = room
	}
	return o
}

// metricsGrace is how long a running scrape may delay the end.
const metricsGrace = time.Second

func (d *running[S]) connection(ctx context.Context, conn *daemon.Conn) {
	if conn.Socket.Flag == daemon.FlagSelf {
		d.traffic.Handler(ctx, conn)
		return
	}
	d.metrics.ConnectionOpened()
	defer d.metrics.ConnectionClosed()
	d.traffic.Handler(ctx, conn)
}

// reload puts the current settings in force, or leaves everything as it was.
func (d *running[S]) reload(context.Context, string) error {
	d.relay.building.Lock() // not while a successor has the store
	defer d.relay.building.Unlock()
	started := time.Now()
	err := d.replace(started)
	d.metrics.Reloaded(time.Now(), err)
	d.noteReload(err)
	if err != nil {
		return err
	}
	// The tables of the old state are garbage now. An idle daemon would keep
	// their memory for minutes.
	debug.FreeOSMemory()
	return nil
}

func (d *running[S]) replace(started time.Time) error {
	next, err := d.app.Configure(d.process.Args, d.process.Environ)
	if err != nil {
		return err
	}
	// Settings with which the daemon could not start are not put in force.
	if _, err := sockets(next); err != nil {
		return err
	}
	if _, err := statusSettings(next); err != nil {
		return err
	}
	life, err := d.build(next)
	if err != nil {
		return err
	}
	d.settled(next.Set())
	if changed := next.Set().ChangedFixed(d.settings.Set(), d.fixed(next)...); len(changed) > 0 {
		d.log.Logger().Warn("settings that need a restart were changed", zap.Strings("settings", changed))
	}
	d.watch(started, life.Files())
	d.latest = next
	d.lookAgain(life.again)
	return nil
}

// watch watches the files of the state in force. A daemon that cannot watch files
// still reloads on SIGHUP.
func (d *running[S]) watch(since time.Time, files []string) {
	if d.watcher == nil {
		return
	}
	if err := d.watcher.Watch(since, files); err != nil {
		d.watchFailed(err)
	}
}

func (d *running[S]) watchFailed(err error) {
	d.log.Logger().Warn("files are not watched, reload with SIGHUP after a change", zap.Error(err))
}

// changes turns the watcher's events into causes of a reload, until ctx ends.
func (d *running[S]) changes(ctx context.Context) <-chan string {
	if d.watcher == nil {
		return d.causes
	}
	events := d.watcher.Events()
	go func() {
		for {
			select {
			case <-events:
				d.askReload("file change")
			case <-ctx.Done():
				return
			}
		}
	}()
	return d.causes
}

// report logs an event of the daemon itself.
func (d *running[S]) report(e daemon.Event) {
	level := zapcore.InfoLevel
	if e.Kind.Trouble() {
		level = zapcore.ErrorLevel
	}
	fields := []zap.Field{}
	if e.Socket.Flag != "" {
		fields = append(fields, zap.Stringer("socket", e.Socket.Endpoint))
	}
	if e.Remote != nil {
		fields = append(fields, zap.String("peer", e.Remote.String()))
	}
	if e.Conns > 0 {
		fields = append(fields, zap.Int("connections", e.Conns))
	}
	if e.Unused > 0 {
		fields = append(fields, zap.Int("unused", e.Unused))
	}
	if e.Cause != "" {
		fields = append(fields, zap.String("cause", e.Cause))
	}
	if e.Err != nil {
		fields = append(fields, zap.String("error", strings.ReplaceAll(e.Err.Error(), "\n", "; ")))
	}
	if len(e.Stack) > 0 {
		fields = append(fields, zap.ByteString("stack", e.Stack))
	}
	d.log.Logger().Log(level, e.Kind.String(), fields...)
}

func closeAll(listeners []daemon.Listener) {
	for _, l := range listeners {
		_ = l.Close() // closing twice is harmless
	}
}

func addresses(listeners []daemon.Listener) []fmt.Stringer {
	var out []fmt.Stringer
	for _, l := range listeners {
		out = append(out, address{l.Addr()})
	}
	return out
}

// address prints its network too, because a unix path alone may not look like an
// address.
type address struct{ net.Addr }

func (a address) String() string { return a.Network() + ":" + a.Addr.String() }
