// The daemons under systemd.

package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/postconf"
)

// systemdRuns reports whether systemd is the init of this machine.
func systemdRuns() bool { return isFolder("/run/systemd/system") }

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// disabled returns the units that are installed but not enabled, and those of them that
// run all the same.
func disabled(ctx context.Context, units []string) (all, run []string, err error) {
	for _, unit := range units {
		// Both fail for a unit that is not as asked, and print its state.
		if out, _, _ := postconf.Run(ctx, "systemctl", "is-enabled", unit); strings.TrimSpace(out) != "disabled" {
			continue
		}
		all = append(all, unit)
		if out, _, _ := postconf.Run(ctx, "systemctl", "is-active", unit); strings.TrimSpace(out) == "active" {
			run = append(run, unit)
		}
	}
	return all, run, ctx.Err()
}

// rightsOf returns the user and the groups that systemd gives a unit, whose drop-ins may
// add groups, and the variable with the folder of its credentials. as is nil if the unit
// names no user.
func rightsOf(ctx context.Context, unit string) (as *syscall.Credential, variables []string, err error) {
	out, _, err := postconf.Run(ctx, "systemctl", "show", "--property=User,Group,SupplementaryGroups", unit)
	if err != nil {
		return nil, nil, err
	}
	if folder := "/run/credentials/" + unit; isFolder(folder) {
		variables = []string{"CREDENTIALS_DIRECTORY=" + folder}
	}
	properties := postconf.Pairs(out)
	if properties["User"] == "" || os.Geteuid() != 0 {
		return nil, variables, nil
	}
	id, err := daemon.UnitIdentity(properties["User"], properties["Group"], strings.Fields(properties["SupplementaryGroups"]))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", unit, err)
	}
	return id.Credential(), variables, nil
}

// start has systemd start the daemons. Those that run already reload their settings.
func (a *Applier) start(ctx context.Context, p *Plan, j *journal) error {
	if !a.managed() {
		return nil
	}
	a.restarted = true
	if err := a.reloadRunning(ctx, p, j); err != nil {
		return err
	}
	if len(j.Units) == 0 {
		return nil
	}
	a.Say("starting %s", strings.Join(j.Units, " "))
	_, _, err := postconf.Run(ctx, "systemctl", append([]string{"enable", "--now"}, j.Units...)...)
	return err
}

// reloadRunning has systemd reload the daemons that were there before this run, or start
// them again, when their commands or groups may have changed or they do not run any more.
func (a *Applier) reloadRunning(ctx context.Context, p *Plan, j *journal) (all error) {
	for _, unit := range p.units() {
		if j.starts(unit) || !strings.HasSuffix(unit, ".service") {
			continue
		}
		verb := "reload-or-restart"
		if writesDropIn(j, unit) {
			verb = "restart"
		}
		_, _, err := postconf.Run(ctx, "systemctl", verb, unit)
		all = errors.Join(all, err)
	}
	return all
}

func writesDropIn(j *journal, unit string) bool {
	return slices.ContainsFunc(j.Files, func(w written) bool { return strings.Contains(w.Path, "/"+unit+".d/") })
}

// starts reports whether apply starts a unit that did not run before.
func (j *journal) starts(unit string) bool {
	return slices.Contains(j.Units, unit) && !slices.Contains(j.Ran, unit)
}

// stop has systemd stop the daemons that apply started. Those that ran before go on, and are
// as little enabled as they were.
func (a *Applier) stop(ctx context.Context, j *journal) (err error) {
	if !a.managed() || len(j.Units) == 0 {
		return nil
	}
	if started := slices.DeleteFunc(slices.Clone(j.Units), func(unit string) bool { return !j.starts(unit) }); len(started) > 0 {
		_, _, err = postconf.Run(ctx, "systemctl", append([]string{"disable", "--now"}, started...)...)
	}
	if len(j.Ran) > 0 {
		_, _, disableErr := postconf.Run(ctx, "systemctl", append([]string{"disable"}, j.Ran...)...)
		err = errors.Join(err, disableErr)
	}
	// During a run that was not ended no one enables the timer: it was before.
	if j.Done && j.starts("postern-milterd.service") {
		err = errors.Join(err, a.stopReports(ctx))
	}
	return err
}

// reportTimer starts the command that has the milter daemon send reports.
const reportTimer = "postern-report.timer"

// stopReports stops the timer of reports, if the administrator has enabled it: without the
// milter daemon its command can only fail.
func (a *Applier) stopReports(ctx context.Context) error {
	// is-enabled fails for a unit that is not enabled, and prints its state.
	if out, _, _ := postconf.Run(ctx, "systemctl", "is-enabled", reportTimer); strings.TrimSpace(out) != "enabled" {
		return ctx.Err()
	}
	a.Say("%s is stopped too: without postern-milterd no DMARC report is sent; the report-… settings stay, and after the next postern setup --apply: systemctl enable --now %[1]s", reportTimer)
	_, _, err := postconf.Run(ctx, "systemctl", "disable", "--now", reportTimer)
	return err
}

// reloadOthers reloads other programs that read a file of ours, if they run.
func (a *Applier) reloadOthers(ctx context.Context, units []string) error {
	if !systemdRuns() {
		return nil
	}
	for _, unit := range units {
		if _, _, err := postconf.Run(ctx, "systemctl", "try-reload-or-restart", unit); err != nil {
			return err
		}
	}
	return nil
}
