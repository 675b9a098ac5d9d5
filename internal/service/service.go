// Package service starts, reloads and stops a daemon: what is the same in
// postern-policyd and postern-milterd.
//
// The way down is the order of [Main]: settings are read, sockets bound,
// privileges given up, the log opened, the state built, and only then is
// anything served. A failure on the way leaves nothing half-started; what the
// operator has to fix is one line on standard error and exit status 78, or 75
// when it can pass by itself, see package transient. A
// reload (SIGHUP, or a change of a file that was read) goes the same way from
// the saved arguments and environment to a new state, which replaces the old
// one in one step or not at all.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/logging"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/status"
	"github.com/postern-mail/postern/internal/transient"
)

// App is what a daemon brings. S is its state: everything that one load of the
// configuration built.
type App[S any] interface {
	// Name is that of the program; Daemon that of its records.
	Name() string
	Daemon() string
	// Configure reads and validates the settings. It touches nothing but the
	// configuration file. The settings are good for usage text only when the
	// error is config.ErrHelp or config.ErrVersion.
	Configure(args, environ []string) (Settings[S], error)
	// Start is called once, when the first state is in force.
	Start(Runtime, *Current[S]) Traffic
}

// Settings are one load of the configuration.
type Settings[S any] interface {
	Configured
	// Fixed names the settings that a reload cannot change, beside the common
	// ones.
	Fixed() []string
	// Build opens everything that the settings name, and adds to the life how it
	// is closed. Errors are for the operator. It never changes what is in force.
	Build(*Life, Runtime) (S, error)
}

// Configured is what settings are besides building a state.
type Configured interface {
	Set() *config.Set
	Common() *config.Common
	// Sockets are those that Traffic.Handler serves.
	Sockets() ([]daemon.Socket, error)
}

// Runtime is what the parts of a daemon report to.
type Runtime struct {
	Log       *zap.Logger
	Metrics   *metrics.Metrics
	Readiness *metrics.Readiness
	Records   record.Sink // of decisions: the log, the counters, the memory of the last ones

	// Reload asks for a reload, for the cause that the log names. It does not wait;
	// nil when there is no daemon that could.
	Reload func(cause string)
}

// NewRuntime returns the runtime of a log and metrics, with a readiness of its own.
func NewRuntime(log *zap.Logger, m *metrics.Metrics) Runtime {
	return Runtime{Log: log, Metrics: m, Readiness: new(metrics.Readiness), Records: record.Sinks{record.Log{Logger: log}, m}}
}

// Traffic is how a daemon answers.
type Traffic struct {
	Handler  func(ctx context.Context, conn *daemon.Conn)
	Commands map[string]admin.Handler
	// Ask puts a question to Handler over a connection of [daemon.FlagSelf], and
	// returns nil when it is answered. The question asks nobody else, and leaves no
	// record.
	Ask func(conn net.Conn) error
	// Sessions says that a connection is a session of Postfix's, which must not
	// be closed while Postfix holds it. Else an idle one may be closed at any
	// time: Postfix dials again.
	Sessions bool
}

// Process is where a daemon runs.
type Process struct {
	Args           []string // without the program's name
	Environ        []string
	Stdout, Stderr io.Writer
	Signals        <-chan os.Signal
	Notifier       daemon.Notifier
	Executable     string              // the program's path, to start a successor; "" if that is not possible
	Predecessor    *daemon.Predecessor // that started this process to take its place; nil for none
}

// Main runs a daemon to its end and returns the exit status.
func Main[S any](app App[S], p Process) int {
	settings, err := app.Configure(p.Args, p.Environ)
	switch {
	case errors.Is(err, config.ErrHelp):
		return printed(settings.Set().WriteUsage(p.Stdout))
	case errors.Is(err, config.ErrVersion):
		_, err := fmt.Fprintln(p.Stdout, app.Name(), Version())
		return printed(err)
	case err != nil:
		return refuse(app.Name(), p, err)
	}
	if settings.Set().CheckOnly() {
		return check(app, p, settings)
	}
	d := &running[S]{app: app, process: p, settings: settings, latest: settings, restarts: make(chan chan<- error), recent: newRecent(), causes: make(chan string, 1)}
	status, err := d.run()
	if err != nil {
		return refuse(app.Name(), d.process, err)
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
	// Found now: the path may be relative, and the file may be replaced.
	if path, err := exec.LookPath(os.Args[0]); err == nil {
		p.Executable, _ = filepath.Abs(path)
	}
	var err error
	if p.Predecessor, err = daemon.PredecessorFromEnvironment(); err != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", os.Args[0], err)
	}
	return p
}

func printed(err error) int {
	if err != nil {
		return daemon.ExitFailed
	}
	return daemon.ExitOK
}

// refuse prints each mistake on a line of its own. What can pass by itself is no
// mistake of the configuration: the service manager shall try again.
func refuse(name string, p Process, err error) int {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(p.Stderr, "%s: %s\n", name, strings.TrimSuffix(line, "\n"))
	}
	if hidden(p.Environ, err) {
		fmt.Fprintf(p.Stderr, "%s: the unit hides /home, /root and /run/user from the daemon (ProtectHome=); name the folder in a drop-in: BindReadOnlyPaths=FOLDER\n", name)
	}
	if p.Predecessor != nil {
		p.Predecessor.Fail(err.Error())
	}
	if transient.Is(err) {
		return daemon.ExitTransient
	}
	return config.ExitConfig
}

// hidden reports whether an error names a path that the sandbox of our units hides,
// and this is a process of a unit.
func hidden(environ []string, err error) bool {
	ofUnit := slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, "INVOCATION_ID=") })
	return ofUnit && slices.ContainsFunc([]string{"/home/", "/root/", "/run/user/"}, func(folder string) bool {
		return strings.Contains(err.Error(), folder)
	})
}

// check is --check-config: everything is opened that can be opened beside a
// daemon that runs, nothing is bound.
func check[S any](app App[S], p Process, settings Settings[S]) int {
	log, err := logging.Open(logging.Options{Format: "console", Level: "warn", Err: p.Stderr})
	if err != nil {
		return refuse(app.Name(), p, err)
	}
	defer log.Close()
	if _, err := sockets(settings); err != nil {
		return refuse(app.Name(), p, err)
	}
	if err := becomeForCheck(settings); err != nil {
		return refuse(app.Name(), p, err)
	}
	if _, err := statusSettings(settings); err != nil {
		return refuse(app.Name(), p, err)
	}
	life := NewLife()
	defer life.Discard()
	warnOf(settings.Set(), log.Logger())
	if _, err := settings.Build(life, NewRuntime(log.Logger(), metrics.New(metrics.Options{Daemon: app.Daemon()}))); err != nil {
		return refuse(app.Name(), p, err)
	}
	return printed(settings.Set().Describe(p.Stdout))
}

// becomeForCheck gives up root, so that a file which the daemon will not be able
// to read is found. Whoever is not root checks with what they may read.
func becomeForCheck(settings Configured) error {
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
func identity(settings Configured) (*daemon.Identity, error) {
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
	flagStatus  = "--status-listen"
)

// aside reports whether a socket is not one of Postfix's.
func aside(s daemon.Socket) bool {
	return s.Flag == flagMetrics || s.Flag == flagAdmin || s.Flag == flagStatus
}

// sockets are all of a daemon: its own, metrics, admin and the status page.
func sockets(settings Configured) ([]daemon.Socket, error) {
	all, err := settings.Sockets()
	if err != nil {
		return nil, err
	}
	c := settings.Common()
	for _, s := range []struct{ flag, endpoint string }{{flagMetrics, c.MetricsListen}, {flagAdmin, c.Admin}, {flagStatus, c.Status.Listen}} {
		if s.endpoint == "" {
			continue
		}
		socket, err := Socket(settings, s.flag, s.endpoint)
		if err == nil && len(socket.Suffix) > 0 {
			err = settings.Set().Errorf(strings.TrimPrefix(s.flag, "--"), "%s: nothing may follow the address", s.endpoint)
		}
		if err == nil && s.flag == flagStatus && c.Status.TokenFile == "" && wide(socket.Endpoint) {
			err = settings.Set().Errorf(nameStatusListen, "%s: %w", s.endpoint, status.ErrNoToken)
		}
		if err != nil {
			return nil, err
		}
		if s.flag != flagMetrics {
			// Whoever may ask about mail (smtpd) may not ask for more.
			socket.Mode, socket.Group = c.AdminMode, c.AdminGroup
		}
		all = append(all, socket)
	}
	return all, nil
}

// Socket reads one endpoint of a flag, with the common socket settings.
func Socket(settings Configured, flag, endpoint string) (daemon.Socket, error) {
	c := settings.Common()
	e, err := daemon.ParseEndpoint(endpoint, c.QueueDirectory)
	if err != nil {
		return daemon.Socket{}, settings.Set().Errorf(strings.TrimPrefix(flag, "--"), "%w", err)
	}
	return daemon.Socket{Endpoint: e, Flag: flag, Mode: c.SocketMode, Group: c.SocketGroup}, nil
}

// of returns the listeners of one flag.
func of(all []daemon.Listener, flag string) []daemon.Listener {
	return slices.DeleteFunc(slices.Clone(all), func(l daemon.Listener) bool { return l.Socket.Flag != flag })
}

// ofPostfix returns the listeners that Postfix asks.
func ofPostfix(all []daemon.Listener) []daemon.Listener {
	return slices.DeleteFunc(slices.Clone(all), func(l daemon.Listener) bool { return aside(l.Socket) })
}
