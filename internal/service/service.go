// Package service starts, reloads and stops a daemon: what is the same in
// postern-policyd and postern-milterd.
//
// The way down is the order of [Main]: settings are read, sockets bound,
// privileges given up, the log opened, the state built, and only then is
// anything served. A failure on the way leaves nothing half-started; what the
// operator has to mend is one line on standard error and exit status 78. A
// reload (SIGHUP, or a change of a file that was read) goes the same way from
// the saved arguments and environment to a new state, which replaces the old
// one in one step or not at all.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/logging"
	"github.com/postern-mail/postern/internal/metrics"
)

// App is what a daemon brings.
type App interface {
	// Name is that of the program; Daemon that of its records.
	Name() string
	Daemon() string
	// Configure reads and validates the settings. It touches nothing but the
	// configuration file. The settings are good for usage text only when the
	// error is config.ErrHelp or config.ErrVersion.
	Configure(args, environ []string) (Settings, error)
	// Start is called once, before the first state is in force. Commands may
	// be asked, and the handler called, only after that.
	Start(Runtime) Traffic
}

// Settings are one load of the configuration.
type Settings interface {
	Set() *config.Set
	Common() *config.Common
	// Fixed names the settings that a reload cannot change, beside the common
	// ones.
	Fixed() []string
	// Sockets are those that Traffic.Handler serves.
	Sockets() ([]daemon.Socket, error)
	// Build opens everything that the settings name. Errors are for the
	// operator. It never changes what is in force.
	Build(Runtime) (State, error)
}

// State is what Build made.
type State interface {
	// Files are the files and folders that were read, for the watcher.
	Files() []string
	// Apply puts the state in force; the one before is let go.
	Apply()
	// Discard closes a state that will not be applied.
	Discard()
}

// Runtime is what the parts of a daemon report to.
type Runtime struct {
	Log     *zap.Logger
	Metrics *metrics.Metrics
}

// Traffic is how a daemon answers.
type Traffic struct {
	Handler  func(ctx context.Context, conn *daemon.Conn)
	Commands map[string]admin.Handler
}

// Process is where a daemon runs.
type Process struct {
	Args           []string // without the program's name
	Environ        []string
	Stdout, Stderr io.Writer
	Signals        <-chan os.Signal
	Notifier       daemon.Notifier
}

// Main runs a daemon to its end and returns the exit status.
func Main(app App, p Process) int {
	settings, err := app.Configure(p.Args, p.Environ)
	switch {
	case errors.Is(err, config.ErrHelp):
		return printed(settings.Set().WriteUsage(p.Stdout))
	case errors.Is(err, config.ErrVersion):
		_, err := fmt.Fprintln(p.Stdout, app.Name(), Version())
		return printed(err)
	case err != nil:
		return refuse(app, p, err)
	}
	if settings.Set().CheckOnly() {
		return check(app, p, settings)
	}
	d := &running{app: app, process: p, settings: settings}
	status, err := d.run()
	if err != nil {
		return refuse(app, p, err)
	}
	return status
}

// MainProcess is the Process of the operating system. It has begun to collect
// signals.
func MainProcess() Process {
	p := Process{
		Args:    os.Args[1:],
		Environ: os.Environ(),
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Signals: daemon.Signals(),
	}
	// Without a notifier the daemon runs, so an unusable NOTIFY_SOCKET is no
	// reason to refuse mail.
	p.Notifier, _ = daemon.SystemdNotifier()
	return p
}

func printed(err error) int {
	if err != nil {
		return daemon.ExitFailed
	}
	return daemon.ExitOK
}

// refuse prints each mistake on a line of its own.
func refuse(app App, p Process, err error) int {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(p.Stderr, "%s: %s\n", app.Name(), strings.TrimSuffix(line, "\n"))
	}
	return config.ExitConfig
}

// check is --check-config: everything is opened that can be opened beside a
// daemon that runs, nothing is bound.
func check(app App, p Process, settings Settings) int {
	log, err := logging.Open(logging.Options{Format: "console", Level: "warn", Err: p.Stderr})
	if err != nil {
		return refuse(app, p, err)
	}
	defer log.Close()
	if _, err := sockets(settings); err != nil {
		return refuse(app, p, err)
	}
	if err := becomeForCheck(settings); err != nil {
		return refuse(app, p, err)
	}
	state, err := settings.Build(Runtime{Log: log.Logger(), Metrics: metrics.New(metrics.Options{Daemon: app.Daemon()})})
	if err != nil {
		return refuse(app, p, err)
	}
	defer state.Discard()
	return printed(settings.Set().Describe(p.Stdout))
}

// becomeForCheck gives up root, so that a file which the daemon will not be able
// to read is found. Whoever is not root checks with what they may read.
func becomeForCheck(settings Settings) error {
	identity, err := identity(settings)
	if err != nil || identity == nil || os.Geteuid() != 0 {
		return err
	}
	if err := identity.Become(); err != nil {
		return settings.Set().Errorf("user", "%w", err)
	}
	return nil
}

// identity is that of --user, nil without one.
func identity(settings Settings) (*daemon.Identity, error) {
	user := settings.Common().User
	if user == "" {
		return nil, nil
	}
	id, err := daemon.LookupIdentity(user)
	if err != nil {
		return nil, settings.Set().Errorf("user", "%w", err)
	}
	return &id, nil
}

// Flags of the sockets that every daemon has beside its own.
const (
	flagMetrics = "--metrics-listen"
	flagAdmin   = "--admin"
)

// sockets are all of a daemon: its own, metrics and admin.
func sockets(settings Settings) ([]daemon.Socket, error) {
	all, err := settings.Sockets()
	if err != nil {
		return nil, err
	}
	c := settings.Common()
	for _, s := range []struct{ flag, endpoint string }{{flagMetrics, c.MetricsListen}, {flagAdmin, c.Admin}} {
		if s.endpoint == "" {
			continue
		}
		socket, err := Socket(settings, s.flag, s.endpoint)
		if err == nil && len(socket.Suffix) > 0 {
			err = settings.Set().Errorf(strings.TrimPrefix(s.flag, "--"), "%s: nothing may follow the address", s.endpoint)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, socket)
	}
	return all, nil
}

// Socket reads one endpoint of a flag, with the common socket settings.
func Socket(settings Settings, flag, endpoint string) (daemon.Socket, error) {
	c := settings.Common()
	e, err := daemon.ParseEndpoint(endpoint, c.QueueDirectory)
	if err != nil {
		return daemon.Socket{}, settings.Set().Errorf(strings.TrimPrefix(flag, "--"), "%w", err)
	}
	return daemon.Socket{Endpoint: e, Flag: flag, Mode: c.SocketMode, Group: c.SocketGroup}, nil
}

// split takes the listeners of one flag out of all.
func split(all []daemon.Listener, flag string) (these, others []daemon.Listener) {
	for _, l := range all {
		if l.Socket.Flag == flag {
			these = append(these, l)
		} else {
			others = append(others, l)
		}
	}
	return these, others
}
