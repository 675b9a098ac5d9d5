// Package service starts, reloads and stops a daemon. It has what is the same in
// postern-policyd and postern-milterd.
//
// [Main] works in this order: it reads the settings, binds the sockets, gives up
// privileges, opens the log, builds the state, and only then serves. A failure
// leaves nothing half-started. What the operator has to fix is one line on
// standard error, with exit status 78, or 75 when the problem can be temporary,
// see package transient. A reload (SIGHUP, or a change of a file that was read)
// builds a new state in the same way from the saved arguments and environment.
// The new state replaces the old one in one step, or not at all.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/logging"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/status"
	"github.com/postern-mail/postern/internal/transient"
)

// App is what differs between the daemons. S is the state of a daemon: everything
// that one load of the configuration has built.
type App[S any] interface {
	// Name is the name of the program, Daemon the name in its records.
	Name() string
	Daemon() string
	// Configure reads and validates the settings. It reads no file but the
	// configuration file. When the error is config.ErrHelp or config.ErrVersion,
	// the settings can only be used for the usage text.
	Configure(args, environ []string) (Settings[S], error)
	// Start is called once, after the first state was put in force.
	Start(Runtime, *Current[S]) Traffic
}

// Settings are one load of the configuration.
type Settings[S any] interface {
	Configured
	// Fixed returns the names of the settings that a reload cannot change, beside
	// the common ones.
	Fixed() []string
	// Build opens everything that the settings name, and adds to the life how to
	// close it. Errors are for the operator. Build never changes what is in
	// force.
	Build(*Life, Runtime) (S, error)
}

// Configured is the part of settings that does not build a state.
type Configured interface {
	Set() *config.Set
	Common() *config.Common
	// Sockets returns the sockets that Traffic.Handler serves.
	Sockets() ([]daemon.Socket, error)
}

// Runtime has everything to which the parts of a daemon report.
type Runtime struct {
	Log       *zap.Logger
	Metrics   *metrics.Metrics
	Readiness *metrics.Readiness
	Records   record.Sink // receives decisions: the log, the counters, the memory of the last ones

	// Reload asks for a reload. The log names its cause. It does not wait. It is
	// nil when there is no daemon that could reload.
	Reload func(cause string)
	// Succeeds is true if this process was started as the successor of another one. What
	// only one process can have may be the other's until its sessions end.
	Succeeds bool
	// Reading takes note that entries of a store have been read from its file. It is
	// nil when there is no daemon that starts.
	Reading func(store string, entries int)
}

// ReadRows calls Reading, if there is one.
func (r Runtime) ReadRows(store string, rows int) {
	if r.Reading != nil {
		r.Reading(store, rows)
	}
}

// NewRuntime returns a runtime with this log, these metrics and a readiness of
// its own. A decision is counted before its record is logged, so that who has read
// the record finds it counted.
func NewRuntime(log *zap.Logger, m *metrics.Metrics) Runtime {
	return Runtime{Log: log, Metrics: m, Readiness: new(metrics.Readiness), Records: record.Sinks{m, record.Log{Logger: log}}}
}

// Traffic is how a daemon answers.
type Traffic struct {
	Handler  func(ctx context.Context, conn *daemon.Conn)
	Commands map[string]admin.Handler
	// Ask asks Handler a question over a connection of [daemon.FlagSelf], and
	// returns nil when it is answered. The question needs no DNS, store or table,
	// and leaves no record.
	Ask func(conn net.Conn) error
	// Sessions is true when a connection is a session of Postfix, which must not
	// be closed while Postfix holds it. Otherwise an idle connection may be
	// closed at any time: Postfix connects again.
	Sessions bool
}

// Process is the environment in which a daemon runs.
type Process struct {
	Args           []string // without the program's name
	Environ        []string
	Stdout, Stderr io.Writer
	Signals        <-chan os.Signal
	Notifier       daemon.Notifier
	Executable     string              // the program's path, to start a successor; "" if that is not possible
	Predecessor    *daemon.Predecessor // started this process as its successor; nil for none
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

// MainProcess returns the Process of the operating system. It begins to collect
// signals.
func MainProcess() Process {
	p := Process{
		Args:    os.Args[1:],
		Environ: os.Environ(),
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Signals: daemon.Signals(),
	}
	// The daemon can run without a notifier, so an unusable NOTIFY_SOCKET is no
	// reason to refuse mail.
	p.Notifier, _ = daemon.SystemdNotifier()
	// The path is looked up now, because it may be relative, and the file may be
	// replaced later.
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

// refuse prints each mistake on a line of its own. A temporary problem is no
// mistake of the configuration: its exit status asks the service manager to try
// again.
func refuse(name string, p Process, err error) int {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(p.Stderr, "%s: %s\n", name, strings.TrimSuffix(line, "\n"))
	}
	if hint := sandboxHint(name, p.Environ, err); hint != "" {
		fmt.Fprintf(p.Stderr, "%s: %s\n", name, hint)
	}
	if hint := limitHint(err, openFiles()); hint != "" {
		fmt.Fprintf(p.Stderr, "%s: %s\n", name, hint)
	}
	if p.Predecessor != nil {
		p.Predecessor.Fail(err.Error())
	}
	if transient.Is(err) {
		return daemon.ExitTransient
	}
	return config.ExitConfig
}

// sandboxHint returns what an administrator can do about the sandbox of our units, if
// this is a process of a unit and the error may come from it.
func sandboxHint(name string, environ []string, err error) string {
	if !slices.ContainsFunc(environ, func(v string) bool { return strings.HasPrefix(v, "INVOCATION_ID=") }) {
		return ""
	}
	if errors.Is(err, syscall.EROFS) {
		return "the unit lets the daemon write below /var/lib/postern and /run/postern only (ProtectSystem=); " +
			"name the folder in a drop-in (systemctl edit " + name + "): ReadWritePaths=FOLDER, or LogsDirectory=NAME for /var/log/NAME, which systemd makes"
	}
	const bind = "name the folder in a drop-in: BindReadOnlyPaths=FOLDER"
	switch text := err.Error(); {
	case belowHome.MatchString(text):
		return "the unit hides /home, /root and /run/user from the daemon (ProtectHome=); " + bind
	case belowTmp.MatchString(text):
		return "the unit gives the daemon a /tmp and /var/tmp of its own (PrivateTmp=); " + bind
	}
	return ""
}

// fewFiles is a limit of open files with which a start may fail, whatever the error says:
// libraries hide the cause.
const fewFiles = 64

// openFiles returns how many files the process may have open.
func openFiles() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxUint64
	}
	return limit.Cur
}

// limitHint returns which limit of the system an administrator has to raise, if the error
// comes from one, or may come from one.
func limitHint(err error, files uint64) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return fmt.Sprintf("the process may have no more than %d files open; raise LimitNOFILE= of its unit, or ulimit -n", files)
	case errors.Is(err, syscall.ENFILE):
		return "the machine has no room for another open file; raise fs.file-max (sysctl)"
	case errors.Is(err, syscall.ENOMEM):
		return "there is no memory left for the process; raise MemoryMax= or LimitAS= of its unit, or ulimit -v"
	case files < fewFiles:
		return fmt.Sprintf("the process may have no more than %d files open, which may be the cause; raise LimitNOFILE= of its unit, or ulimit -n", files)
	}
	return ""
}

// belowHome and belowTmp match a path that the sandbox of our units hides.
var (
	belowHome = regexp.MustCompile(`(?:^|[^\w/.-])/(?:home|root|run/user)/`)
	belowTmp  = regexp.MustCompile(`(?:^|[^\w/.-])/(?:var/)?tmp/`)
)

// check runs --check-config. It opens everything that can be opened while a
// daemon runs, and binds nothing.
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
	warnOf(settings.Set(), log.Logger(), nil)
	if _, err := settings.Build(life, NewRuntime(log.Logger(), metrics.New(metrics.Options{Daemon: app.Daemon()}))); err != nil {
		return refuse(app.Name(), p, err)
	}
	return printed(settings.Set().Describe(p.Stdout))
}

// becomeForCheck gives up root, so that the check finds files that the daemon
// cannot read. A user who is not root checks with their own rights.
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

// identity returns the identity of --user, nil without one.
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

// Flags of the sockets that both daemons have beside their own.
const (
	flagMetrics = "--metrics-listen"
	flagAdmin   = "--admin"
	flagStatus  = "--status-listen"
)

// aside reports whether a socket is not for Postfix.
func aside(s daemon.Socket) bool {
	return s.Flag == flagMetrics || s.Flag == flagAdmin || s.Flag == flagStatus
}

// sockets returns all sockets of a daemon: its own, and those of metrics, admin
// and the status page.
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
			// A user who may ask about mail (smtpd) must not get the rights of
			// the admin socket too.
			socket.Mode, socket.Group = c.AdminMode, c.AdminGroup
		}
		all = append(all, socket)
	}
	return all, nil
}

// Socket parses one endpoint of a flag, and adds the common socket settings.
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

// ofPostfix returns the listeners to which Postfix connects.
func ofPostfix(all []daemon.Listener) []daemon.Listener {
	return slices.DeleteFunc(slices.Clone(all), func(l daemon.Listener) bool { return aside(l.Socket) })
}
