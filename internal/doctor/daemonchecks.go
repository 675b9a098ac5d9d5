package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/postern-mail/postern/internal/setup"
)

// inUse returns the daemons that Postfix asks or that are meant to run.
func (f *Facts) inUse() []*Daemon {
	var used []*Daemon
	if len(f.Hooks) > 0 || f.Policyd.wanted() {
		used = append(used, f.Policyd)
	}
	if f.namesMilterd() || f.Milterd.wanted() {
		used = append(used, f.Milterd)
	}
	return used
}

// namesMilterd reports whether Postfix names a milter that is ours or looks like ours.
func (f *Facts) namesMilterd() bool {
	return f.usesMilterd() || slices.ContainsFunc(f.Milters, func(m AttachedMilter) bool {
		return looksOurs(m.Endpoint)
	})
}

// checkDaemons looks whether the daemons are installed and run, with the settings that
// are configured.
func checkDaemons(_ context.Context, f *Facts) []Finding {
	var found []Finding
	used := f.inUse()
	for _, d := range used {
		found = append(found, d.findings()...)
	}
	if len(used) == 0 {
		return []Finding{okf("neither daemon is meant to run")}
	}
	var names []string
	for _, d := range used {
		names = append(names, d.Name)
	}
	return orOK(found, "%s: running, with what is configured", strings.Join(names, " and "))
}

func (d *Daemon) findings() []Finding {
	short := strings.TrimPrefix(d.Name, "postern-")
	switch {
	case d.Binary == "" && !d.Running:
		return []Finding{failf("install it: make install, or the package; see deploy/README.md", "%s is not installed", d.Name)}
	case d.SettingsErr != nil:
		return nil // checkSettings reports every problem
	case errors.Is(d.AskErr, fs.ErrPermission):
		return []Finding{warnf("run postern doctor as root, or as a member of the socket's group", "%s cannot be asked: %v", d.Name, d.AskErr)}
	case !d.Running:
		fix := "systemctl enable --now " + d.Name
		if !d.Unit.known() {
			fix = fmt.Sprintf("start it, or name its admin socket with --%s-admin", short)
		}
		if errors.Is(d.AskErr, fs.ErrNotExist) || errors.Is(d.AskErr, syscall.ECONNREFUSED) {
			return []Finding{failf(fix, "%s does not run: nothing answers at %s", d.Name, d.client.Endpoint())}
		}
		return []Finding{failf(fix, "%s does not answer at %s: %v", d.Name, d.client.Endpoint(), d.AskErr)}
	}
	var found []Finding
	if d.Refused != "" {
		text, fix := splitFix(oneLine(d.Refused), "correct the file; the daemon reads it again by itself")
		found = append(found, failf(fix, "%s runs with older settings, because the new ones are refused: %s", d.Name, text))
	}
	for _, s := range d.Pending {
		fix := "systemctl reload " + d.Name
		if s.Restart {
			fix = "postern restart " + short
		}
		found = append(found, warnf(fix, "%s: %s = %s is configured (%s) and not in force", d.Name, s.Name, s.Pending, s.PendingOrigin))
	}
	return found
}

// checkSettings reports the results of the daemons' own checks of their settings.
func checkSettings(_ context.Context, f *Facts) []Finding {
	var found []Finding
	var silent []*outage
	for _, d := range f.inUse() {
		found = append(found, d.problems(&silent)...)
	}
	for _, o := range silent {
		found = append(found, o.finding())
	}
	if !isRoot() {
		found = append(found, warnf("run postern doctor as root", "only root can look with the daemons' and Postfix's rights"))
	}
	return orOK(found, "each daemon accepts its settings, and reads its tables, keys and secrets")
}

// problems returns what is wrong with the settings of a daemon. Tables that cannot answer are
// added to silent.
func (d *Daemon) problems(silent *[]*outage) []Finding {
	var found []Finding
	if d.SettingsErr != nil {
		for line := range strings.Lines(d.SettingsErr.Error()) {
			found = append(found, d.problem(line))
		}
		return found
	}
	for _, line := range d.Problems {
		if outageOf(silent, d, line) == nil {
			found = append(found, d.problem(line))
		}
	}
	if d.CheckErr != nil {
		found = append(found, warnf("run it by hand: "+d.Name+" --check-config --online", "%v", d.CheckErr))
	}
	if d.IdentityErr != nil && !d.Running {
		found = append(found, failf("systemd-sysusers, or name a user that there is with --user", "%s: %v", d.Name, d.IdentityErr))
	}
	if d.Identity != nil && d.Identity.UID == 0 {
		found = append(found, warnf("give it a user of its own: user = \"postern\", or User= in the unit", "%s runs as root", d.Name))
	}
	return found
}

// problem returns the finding for a line of --check-config.
func (d *Daemon) problem(line string) Finding {
	who := ""
	if d.Identity != nil && d.Identity.UID != 0 {
		who = " (as user " + d.Identity.Name + ")"
	}
	otherwise := "correct this setting; " + d.Name + " --check-config looks again"
	if strings.Contains(line, cannotAnswer) {
		otherwise = "start that server, or correct how the table names it; " + d.Name + " --check-config --online looks again"
	}
	text, fix := splitFix(strings.TrimSpace(line), otherwise)
	return failf(fix, "%s%s: %s", d.Name, who, text)
}

// splitFix splits an error at its last semicolon into the problem and the fix. Without
// one, otherwise is the fix.
func splitFix(text, otherwise string) (problem, fix string) {
	if at := strings.LastIndex(text, "; "); at > 0 {
		return text[:at], text[at+2:]
	}
	return text, otherwise
}

func oneLine(text string) string {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), " | ")
}

// checkUnits looks at the systemd units.
func checkUnits(_ context.Context, f *Facts) []Finding {
	var found []Finding
	known := false
	for _, d := range f.inUse() {
		known = known || d.Unit.known()
		found = append(found, d.unitFindings()...)
	}
	if f.Milterd.Unit.known() {
		found = append(found, f.dropIn()...)
	}
	if !known && len(found) == 0 {
		return []Finding{okf("no unit of systemd: the daemons are started by other means")}
	}
	return orOK(found, "units are enabled and active, and their sandbox hides nothing that the settings name")
}

// dropIn judges the commands that postern setup has copied into a drop-in, so that the
// session decides whose mail it is.
func (f *Facts) dropIn() []Finding {
	var found []Finding
	stale, after := setup.DropInTrouble(f.Options.Root)
	if stale != "" {
		found = append(found, warnf("run postern setup --apply", "%s has a copy of the commands of the unit and of other drop-ins (ExecStart=, ExecReload=), which were changed since: systemd runs the copy", stale))
	}
	if after != "" {
		found = append(found, failf("write --listen in place of --listen-verify there", "%s undoes what postern setup has set: mail of users who log in at port 25 is verified, and not signed", after))
	}
	return found
}

func (d *Daemon) unitFindings() []Finding {
	var found []Finding
	if !d.Unit.known() {
		return nil
	}
	for _, u := range append([]Unit{d.Unit}, d.Sockets...) {
		switch {
		case !u.known():
			continue
		case u.Properties["ActiveState"] == "failed":
			found = append(found, failf(fmt.Sprintf("journalctl -u %s -n 20 says why; then systemctl reset-failed %s && systemctl start %s", u.Name, u.Name, u.Name),
				"%s has failed (%s, status %s)", u.Name, u.Properties["Result"], u.Properties["ExecMainStatus"]))
		case strings.HasPrefix(u.Properties["SubState"], "auto-restart"):
			found = append(found, failf(fmt.Sprintf("journalctl -u %s -n 20 says why; systemd tries again by itself", u.Name),
				"%s does not start (%s, status %s)", u.Name, u.Properties["Result"], u.Properties["ExecMainStatus"]))
		case !u.enabled() && d.named(u) && !d.pulledIn(u):
			found = append(found, warnf("systemctl enable "+u.Name, "%s is not enabled: it is gone after the next boot", u.Name))
		case !u.active() && d.named(u):
			found = append(found, failf("systemctl start "+u.Name, "%s is enabled and not active", u.Name))
		}
		if u.Properties["NeedDaemonReload"] == "yes" {
			found = append(found, warnf("systemctl daemon-reload", "%s was changed on disk, and systemd still has the old text", u.Name))
		}
	}
	return append(found, d.sandbox()...)
}

// named reports whether the daemon needs a unit.
func (d *Daemon) named(u Unit) bool {
	return u.Name == d.Unit.Name || slices.ContainsFunc(d.Args, func(arg string) bool {
		return u.Descriptor != "" && strings.HasSuffix(arg, "systemd:"+u.Descriptor) || arg == "systemd"
	})
}

// pulledIn reports whether a unit that is not enabled starts all the same: the service
// requires its sockets, and a connection to a socket starts the service.
func (d *Daemon) pulledIn(u Unit) bool {
	if u.Name != d.Unit.Name {
		return d.Unit.enabled()
	}
	return slices.ContainsFunc(d.Sockets, func(socket Unit) bool { return socket.enabled() && d.named(socket) })
}

// checkVersions compares the versions of the command, the programs and the processes.
func checkVersions(_ context.Context, f *Facts) []Finding {
	var found []Finding
	for _, d := range f.inUse() {
		short := strings.TrimPrefix(d.Name, "postern-")
		switch {
		case d.Runs != "" && d.Version != "" && d.Runs != d.Version:
			found = append(found, warnf("postern restart "+short, "%s %s runs, and %s is %s", d.Name, d.Runs, d.Binary, d.Version))
		case d.Version != "" && f.Options.Version != "" && d.Version != f.Options.Version:
			found = append(found, warnf("install both from one release", "postern is %s, and %s is %s", f.Options.Version, d.Binary, d.Version))
		}
	}
	return orOK(found, "all of release %s", cmp.Or(f.Options.Version, "unknown"))
}
