package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
)

// Daemon holds what is known about one of our daemons, whether it runs or not.
type Daemon struct {
	Name    string // postern-policyd
	Running bool
	AskErr  error // why a daemon that does not run could not be asked
	PID     int   // 0 if not known

	Binary  string // path of the program; "" if not installed
	Version string // version of Binary
	Runs    string // version of the process

	// Args and Environ are those of the process, or of its unit. If both are unknown,
	// they are those that the settings below were read with.
	Args, Environ []string
	ArgsGuessed   bool             // it runs, but its arguments are not known
	Identity      *daemon.Identity // user and groups that it has or will have; nil if not known
	IdentityErr   error

	Settings    map[string][]string // a scalar is a list of one; empty lists are ""
	SettingsErr error               // why its settings are refused
	Refused     string              // why it runs with older settings
	Pending     []api.Setting

	// Problems are the lines that its own check of its settings prints: tables, keys,
	// stores, secrets. It is made with the daemon's rights. CheckErr is the reason if
	// there was no check.
	Problems []string
	CheckErr error

	Unit    Unit
	Sockets []Unit

	settings func(args, environ []string) ([]config.Value, error)
	defaults []string // arguments
	client   admin.Client
	bounds   bounds
}

// daemonKind holds what differs between the two daemons.
type daemonKind struct {
	name, socket string
	sockets      []string // units
	settings     func(args, environ []string) ([]config.Value, error)
	defaults     []string // arguments for which all settings have their defaults
}

// readDaemon gathers all facts about a daemon. It does not need Postfix.
func readDaemon(ctx context.Context, kind daemonKind, o DaemonOptions, all Options) *Daemon {
	d := &Daemon{bounds: all.bounds, Name: kind.name, settings: kind.settings, defaults: kind.defaults, client: admin.Client{Daemon: kind.name, Path: kind.socket}}
	if o.Admin != "" {
		if err := d.client.SetEndpoint(o.Admin); err != nil {
			d.AskErr = fmt.Errorf("admin endpoint: %w", err)
		}
	}
	units := readUnits(ctx, append([]string{kind.name + ".service"}, kind.sockets...))
	d.Unit, d.Sockets = units[0], units[1:]
	answer, err := d.fetchConfig(ctx)
	d.Running = err == nil
	d.findProgram(o)
	d.findArguments(o)
	d.findIdentity()
	if d.Running {
		d.take(answer)
	} else {
		d.AskErr = cmp.Or(d.AskErr, err)
		d.readSettings()
	}
	if all.wants("versions") {
		d.findVersions(ctx)
	}
	if all.wants("settings") {
		d.check(ctx)
	}
	return d
}

// fetchConfig asks the running daemon for its settings, and finds its process.
func (d *Daemon) fetchConfig(ctx context.Context) (api.ConfigResult, error) {
	ctx, cancel := context.WithTimeout(ctx, d.bounds.ask)
	defer cancel()
	var answer api.ConfigResult
	err := d.client.Call(ctx, api.Config, struct{}{}, &answer, nil)
	if err == nil && d.client.Network != daemon.NetworkTCP {
		d.PID = d.process(ctx)
	}
	return answer, err
}

// process returns the process that answers, or 0 if it is not known. The kernel names the one
// that opened the socket, and after a restart its successor has the socket. So the daemon is
// asked. In a container its answer is a number of the container's own, and no process of this
// name has it here.
func (d *Daemon) process(ctx context.Context) int {
	var answer admin.Info
	if err := d.client.Call(ctx, "version", struct{}{}, &answer, nil); err != nil {
		answer.PID = 0
	}
	for _, pid := range []int{answer.PID, peerPID(d.client.Path)} {
		if line := procList(pid, "cmdline"); len(line) > 0 && filepath.Base(line[0]) == d.Name {
			return pid
		}
	}
	return 0
}

// take records the settings of the running daemon.
func (d *Daemon) take(answer api.ConfigResult) {
	d.Settings, d.Refused = make(map[string][]string), answer.Refused
	for _, s := range answer.Settings {
		d.Settings[s.Name] = config.Literals(s.Value)
		if s.Pending != "" {
			d.Pending = append(d.Pending, s)
		}
	}
}

// readSettings reads the settings that the daemon would have.
func (d *Daemon) readSettings() {
	values, err := d.settings(d.Args, d.Environ)
	if err != nil {
		d.SettingsErr = err
		// The other checks use the defaults.
		values, _ = d.settings(d.defaults, nil)
	}
	d.Settings = make(map[string][]string)
	for _, v := range values {
		d.Settings[v.Name] = config.Literals(v.Text)
	}
}

// findProgram finds the program.
func (d *Daemon) findProgram(o DaemonOptions) {
	candidates := []string{o.Binary}
	if o.Binary == "" {
		candidates = []string{filepath.Join("/usr/sbin", d.Name), filepath.Join("/usr/local/sbin", d.Name)}
		if self, err := os.Executable(); err == nil {
			candidates = slices.Insert(candidates, 0, filepath.Join(filepath.Dir(self), d.Name))
		}
		if fields := strings.Fields(d.Unit.Properties["ExecStart"]); len(fields) > 1 {
			candidates = slices.Insert(candidates, 0, strings.TrimPrefix(fields[1], "path="))
		}
		if d.PID > 0 {
			if exe, err := os.Readlink(procPath(d.PID, "exe")); err == nil {
				candidates = slices.Insert(candidates, 0, strings.TrimSuffix(exe, " (deleted)"))
			}
		}
		candidates = append(candidates, d.Name)
	}
	for _, path := range candidates {
		if found, err := exec.LookPath(path); err == nil {
			d.Binary = found
			return
		}
	}
}

// findVersions asks the program for its version. If the process runs another file, that
// one is asked too.
func (d *Daemon) findVersions(ctx context.Context) {
	if d.Binary != "" {
		d.Version = d.version(ctx, d.Binary)
	}
	if d.PID == 0 {
		return
	}
	file, err := os.Stat(d.Binary)
	process, processErr := os.Stat(procPath(d.PID, "exe"))
	if d.Runs = d.Version; err != nil || processErr != nil || !os.SameFile(file, process) {
		d.Runs = d.version(ctx, procPath(d.PID, "exe"))
	}
}

// version returns the last word that a program prints for --version.
func (d *Daemon) version(ctx context.Context, path string) string {
	ctx, cancel := context.WithTimeout(ctx, d.bounds.ask)
	defer cancel()
	out, err := outputOf(ctx, path, "--version")
	words := strings.Fields(out)
	if err != nil || len(words) == 0 {
		return ""
	}
	return words[len(words)-1]
}

// findArguments finds the arguments of the process or, if there is none, of the unit.
func (d *Daemon) findArguments(o DaemonOptions) {
	d.Environ = os.Environ()
	switch line := procList(d.PID, "cmdline"); {
	case d.PID > 0 && len(line) > 0:
		d.Args = line[1:]
		if cwd, err := os.Readlink(procPath(d.PID, "cwd")); err == nil {
			absoluteConfig(d.Args, cwd)
		}
		if environ := procList(d.PID, "environ"); environ != nil {
			d.Environ = slices.DeleteFunc(environ, isOfProcess)
		}
		return
	case o.Config != "":
		d.Args = []string{"--config=" + o.Config}
		if cwd, err := os.Getwd(); err == nil {
			absoluteConfig(d.Args, cwd)
		}
		return
	case d.Unit.known():
		d.Args, d.Environ = d.Unit.args(), append(d.Environ, d.Unit.words("Environment")...)
		if folder := d.Unit.credentials(); folder != "" {
			d.Environ = append(d.Environ, "CREDENTIALS_DIRECTORY="+folder)
		}
	default:
		d.ArgsGuessed = d.Running
	}
}

// absoluteConfig makes the name of the settings file in args absolute, because
// processes in other folders use it.
func absoluteConfig(args []string, cwd string) {
	for i, arg := range args {
		name, isOne := strings.CutPrefix(arg, "--config=")
		switch {
		case isOne && name != "" && !filepath.IsAbs(name):
			args[i] = "--config=" + filepath.Join(cwd, name)
		case i > 0 && args[i-1] == "--config" && arg != "" && !filepath.IsAbs(arg):
			args[i] = filepath.Join(cwd, arg)
		}
	}
}

// isOfProcess reports whether a variable is meant for one process alone, such as those
// that systemd sets for it.
func isOfProcess(variable string) bool {
	for _, prefix := range []string{"NOTIFY_SOCKET=", "LISTEN_", "WATCHDOG_", daemon.HandoverVariable + "="} {
		if strings.HasPrefix(variable, prefix) {
			return true
		}
	}
	return false
}

// findIdentity finds the daemon's user and groups: those of the process, of the unit,
// of --user, or of the user that the package creates.
func (d *Daemon) findIdentity() {
	spec := ""
	for i, arg := range d.Args {
		if value, ok := strings.CutPrefix(arg, "--user="); ok {
			spec = value
		} else if arg == "--user" && i+1 < len(d.Args) {
			spec = d.Args[i+1]
		}
	}
	if values, err := d.settings(d.Args, d.Environ); err == nil && spec == "" {
		for _, v := range values {
			if v.Name == "user" {
				spec = first(config.Literals(v.Text))
			}
		}
	}
	var id daemon.Identity
	switch {
	case d.PID > 0:
		id, d.IdentityErr = processIdentity(d.PID)
	case spec != "":
		id, d.IdentityErr = daemon.LookupIdentity(spec)
	case d.Unit.known():
		id, d.IdentityErr = unitIdentity(d.Unit)
	default:
		id, d.IdentityErr = daemon.LookupIdentity(packageUser)
	}
	if d.IdentityErr == nil {
		d.Identity = &id
	}
}

// packageUser is the user that systemd-sysusers creates.
const packageUser = "postern"

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// check runs the daemon's own check of all settings, with the daemon's rights. It also
// asks the servers of its tables.
func (d *Daemon) check(ctx context.Context) {
	if d.Binary == "" || d.SettingsErr != nil || d.ArgsGuessed {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d.bounds.check)
	defer cancel()
	args := append(slices.Clone(d.Args), "--check-config", "--online")
	errOut, err := runAs(ctx, d.Identity, d.Environ, d.Binary, args...)
	if err == nil {
		return
	}
	if ctx.Err() != nil {
		d.CheckErr = fmt.Errorf("%s --check-config has not ended in %s", d.Name, d.bounds.check)
		return
	}
	for line := range strings.Lines(errOut) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), d.Name+": "); ok {
			d.Problems = append(d.Problems, text)
		}
	}
	if len(d.Problems) == 0 {
		d.CheckErr = errors.New(strings.TrimSpace(d.Name + " --check-config: " + err.Error() + " " + errOut))
	}
}

// list returns a setting that is a list.
func (d *Daemon) list(name string) []string { return d.Settings[name] }

// shadows reports whether a check, or what it judges, is in shadow mode.
func (d *Daemon) shadows(what string) bool {
	return slices.Contains(d.list("shadow"), "all") || slices.Contains(d.list("shadow"), what)
}

// text returns a setting that is not a list.
func (d *Daemon) text(name string) string { return first(d.Settings[name]) }

// number returns a setting that is a number, or 0.
func (d *Daemon) number(name string) int {
	n, _ := strconv.Atoi(d.text(name))
	return n
}

// wanted reports whether the daemon is meant to run.
func (d *Daemon) wanted() bool { return d.Running || d.Unit.enabled() }
