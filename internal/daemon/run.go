package daemon

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// The codes that [Run] returns for os.Exit.
const (
	ExitOK     = 0
	ExitFailed = 1
)

// ExitTransient is the exit status of a daemon that could not start because of a
// temporary problem (EX_TEMPFAIL of sysexits.h): try again.
const ExitTransient = 75

// signalQueue is how many signals may wait while the loop is busy. More would
// only repeat what is queued.
const signalQueue = 8

// stopMargin is how much longer than the drain time-out stopping may take before
// the service manager kills the process.
const stopMargin = cutGrace + 5*time.Second

// Signals starts to collect SIGTERM, SIGINT, SIGHUP and SIGUSR2, and ignores
// SIGPIPE, so that the daemon does not end when the reader of its log does. Call
// it first: until then SIGHUP kills the process.
func Signals() <-chan os.Signal {
	signals := make(chan os.Signal, signalQueue)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR2)
	signal.Ignore(syscall.SIGPIPE)
	return signals
}

// RunOptions are the parts that [Run] calls. Only Signals and Serve are required.
type RunOptions struct {
	Signals <-chan os.Signal // of Signals, or a test's own
	Held    []os.Signal      // signals that came before Run: they are handled first
	Changes <-chan string    // paths of files that changed; the watcher joins bursts
	// Serve serves until its ctx is done, then drains and returns, as [Serve] does.
	Serve func(ctx context.Context) error
	// Reload builds the new state and puts it in force, or returns an error and
	// leaves everything as it was. It runs at the same time as Serve, but only
	// once at a time: all requests that come meanwhile lead to one more reload.
	// cause is "SIGHUP" or a path. ctx ends when draining begins.
	Reload func(ctx context.Context, cause string) error
	// ReopenLogs is called at SIGHUP, before Reload, so that its outcome is in
	// the new file.
	ReopenLogs func() error
	// Restart starts a successor. It returns nil when the successor has taken
	// over from this process, else the reason why not. It runs at the same time
	// as Serve, but only once at a time. A nil Restart means that SIGUSR2 has no
	// effect. ctx ends when draining begins.
	Restart func(ctx context.Context) error
	// Restarts are requests for a restart; each receives the outcome.
	Restarts <-chan chan<- error
	// Hurry is called when a daemon that was replaced is asked to stop. From then
	// on its sessions have the drain time-out to end. It may be nil.
	Hurry    func()
	Notifier Notifier
	// Alive returns nil when the daemon answers a question that it asks itself.
	// Only then does the service manager get its watchdog message. It runs at the
	// same time as Serve, but only once at a time; its ctx ends when draining
	// begins. A nil Alive means that the daemon is always alive.
	Alive func(ctx context.Context) error
	// DrainTimeout is reported to the service manager; Serve has to respect it.
	DrainTimeout time.Duration
	Report       func(Event) // for the log, on Run's goroutine; nil drops it
}

// Run serves until SIGTERM or SIGINT, or until ctx is done, and then drains.
// After a second of these signals it returns at once, while Serve still runs: the
// caller exits. SIGHUP reopens the logs and reloads. Run returns ExitOK after a
// drain without error, and ExitFailed after a second signal or when serving
// failed.
func Run(ctx context.Context, o RunOptions) int {
	if o.Report == nil {
		o.Report = func(Event) {}
	}
	serving, drain := context.WithCancel(ctx)
	defer drain()
	r := &runner{o: o, served: make(chan error, 1), reloaded: make(chan reload, 1), restarted: make(chan error, 1), alive: make(chan error, 1)}
	go func() { r.served <- o.Serve(serving) }() // ends before Run returns, except after a second signal

	if o.Notifier.Watchdog > 0 {
		// Half the time: systemd's own advice, sd_watchdog_enabled(3).
		ticker := time.NewTicker(max(o.Notifier.Watchdog/2, time.Millisecond))
		defer ticker.Stop()
		r.tick = ticker.C
	}
	r.notified(o.Notifier.Ready("serving"))
	r.untilStop(serving)
	r.notified(o.Notifier.Stopping(o.DrainTimeout + stopMargin))
	drain()
	return r.untilDrained()
}

var errUnasked = errors.New("serving ended without being asked")

// reload is the outcome of one Reload.
type reload struct {
	cause string
	err   error
}

// runner is the state of one Run. All of it belongs to Run's goroutine.
type runner struct {
	o        RunOptions
	tick     <-chan time.Time // nil without a watchdog
	served   chan error
	reloaded chan reload

	reloading bool
	again     string // the cause of one more reload after this one; "" for none

	alive        chan error
	asking       bool             // Alive is running
	late         <-chan time.Time // fires when its answer is late
	unresponsive bool             // that was reported

	restarted  chan error
	restarting bool
	asked      chan<- error // who asked for the restart; nil for a signal
	replaced   bool         // a successor serves, and is the main process for the service manager
}

// untilStop returns when the daemon must stop, or when Serve ended by itself. In
// the second case untilDrained reads the outcome from served.
func (r *runner) untilStop(ctx context.Context) {
	for _, sig := range r.o.Held {
		if r.signalled(ctx, sig) {
			return
		}
	}
	changes := r.o.Changes
	for {
		select {
		case sig := <-r.o.Signals:
			if r.signalled(ctx, sig) {
				return
			}
		case asked := <-r.o.Restarts:
			r.restart(ctx, asked)
		case err := <-r.restarted:
			if r.finishRestart(err); err == nil {
				return
			}
		case path, open := <-changes:
			if !open {
				changes = nil
				continue
			}
			r.reload(ctx, path)
		case done := <-r.reloaded:
			r.finishReload(ctx, done)
		case <-r.tick:
			r.startAlive(ctx)
		case err := <-r.alive:
			r.answered(ctx, err)
		case <-r.late:
			r.late = nil
			r.silent(errNoAnswer)
		case err := <-r.served:
			if err == nil && ctx.Err() == nil {
				err = errUnasked
			}
			r.served <- err
			return
		case <-ctx.Done():
			return
		}
	}
}

// signalled handles a signal, and reports whether it asks the daemon to stop.
func (r *runner) signalled(ctx context.Context, sig os.Signal) (stop bool) {
	r.o.Report(Event{Kind: SignalReceived, Cause: sig.String()})
	switch sig {
	case syscall.SIGHUP:
		r.reopenLogs()
		r.reload(ctx, "SIGHUP")
	case syscall.SIGUSR2:
		r.restart(ctx, nil)
	default:
		return true
	}
	return false
}

// untilDrained waits for Serve and for a reload that draining interrupted.
func (r *runner) untilDrained() int {
	var err error
	for served := false; !served || r.reloading || r.restarting; {
		select {
		case sig := <-r.o.Signals:
			switch {
			case sig == syscall.SIGHUP:
				r.reopenLogs() // log rotation does not wait for the drain
				continue
			case sig == syscall.SIGUSR2:
				continue
			case r.replaced:
				r.replaced = false // the next one is the first for this process
				r.hurry()
				continue
			}
			r.o.Report(Event{Kind: StoppedBySecond, Cause: sig.String()})
			return ExitFailed
		case <-r.tick:
			r.notified(r.o.Notifier.keepAlive())
		case <-r.alive: // begun before
		case <-r.reloaded:
			r.reloading = false
		case err := <-r.restarted:
			r.finishRestart(err)
		case err = <-r.served:
			served = true
		}
	}
	if err != nil {
		r.o.Report(Event{Kind: ServeFailed, Err: err})
		return ExitFailed
	}
	r.o.Report(Event{Kind: Drained})
	return ExitOK
}

// reload runs Reload on its own goroutine, so that a slow one delays neither
// SIGTERM nor the watchdog. untilStop and untilDrained receive its outcome.
func (r *runner) reload(ctx context.Context, cause string) {
	if r.o.Reload == nil {
		return
	}
	if r.reloading {
		r.again = cause
		return
	}
	r.reloading = true
	r.notified(r.o.Notifier.Reloading())
	go func() { r.reloaded <- reload{cause, r.o.Reload(ctx, cause)} }()
}

func (r *runner) finishReload(ctx context.Context, done reload) {
	r.reloading = false
	event, status := Event{Kind: Reloaded, Cause: done.cause}, "serving"
	if done.err != nil {
		event.Kind, event.Err = ReloadFailed, done.err
		status = "serving with the old configuration: " + done.err.Error()
	}
	r.o.Report(event)
	r.notified(r.o.Notifier.Ready(status))
	if cause := r.again; cause != "" {
		r.again = ""
		r.reload(ctx, cause)
	}
}

// restart runs Restart on its own goroutine, like reload.
func (r *runner) restart(ctx context.Context, asked chan<- error) {
	if r.o.Restart == nil || r.restarting {
		if asked != nil {
			asked <- errors.New("a restart is not possible now")
		}
		return
	}
	r.restarting, r.asked = true, asked
	go func() { r.restarted <- r.o.Restart(ctx) }()
}

func (r *runner) finishRestart(err error) {
	r.restarting = false
	if r.asked != nil {
		r.asked <- err
		r.asked = nil
	}
	if err != nil {
		r.o.Report(Event{Kind: RestartFailed, Err: err})
		return
	}
	r.o.Report(Event{Kind: Replaced})
	r.replaced, r.o.Notifier = true, Notifier{}
}

// errNoAnswer is the error when Alive does not return in time.
var errNoAnswer = errors.New("no answer yet")

// startAlive starts Alive. The service manager gets no watchdog message until Alive has
// returned nil.
func (r *runner) startAlive(ctx context.Context) {
	switch {
	case r.asking:
		return
	case r.o.Alive == nil:
		r.notified(r.o.Notifier.keepAlive())
		return
	}
	r.asking, r.late = true, time.After(r.o.Notifier.Watchdog/4)
	go func() { r.alive <- r.o.Alive(ctx) }()
}

func (r *runner) answered(ctx context.Context, err error) {
	r.asking, r.late = false, nil
	switch {
	case err == nil:
		r.notified(r.o.Notifier.keepAlive())
		if r.unresponsive {
			r.unresponsive = false
			r.o.Report(Event{Kind: Responsive})
		}
	case ctx.Err() == nil:
		r.silent(err)
	}
}

// silent reports, once, that the daemon does not answer.
func (r *runner) silent(err error) {
	if !r.unresponsive {
		r.unresponsive = true
		r.o.Report(Event{Kind: Unresponsive, Err: err})
	}
}

func (r *runner) hurry() {
	if r.o.Hurry != nil {
		r.o.Hurry()
	}
}

func (r *runner) reopenLogs() {
	if r.o.ReopenLogs == nil {
		return
	}
	if err := r.o.ReopenLogs(); err != nil {
		r.o.Report(Event{Kind: LogsReopenFailed, Err: err})
	}
}

func (r *runner) notified(err error) {
	if err != nil {
		r.o.Report(Event{Kind: NotifyFailed, Err: err})
	}
}
