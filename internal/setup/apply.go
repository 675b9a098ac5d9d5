// Applying a plan, step by step. Each step can be undone with the journal.

package setup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-mail/postern/internal/postconf"
)

// Applier applies a plan to a system.
type Applier struct {
	Options
	Journals Journals
	// Say is called with a message for each step.
	Say func(format string, args ...any)
	// Services is set if systemd is to start and stop the daemons.
	Services bool
	// Binaries is the folder of the daemons' programs, which check their settings. ""
	// searches beside this program and in the usual folders.
	Binaries string

	restarted bool // the daemons that ran before have been reloaded or restarted

	step func(name string) // called before each step, for tests; may be nil
}

// ErrNotRunning is returned when the settings are written, but no systemd starts the
// daemons here. They must run before Postfix asks them.
var ErrNotRunning = errors.New("the settings are written, and Postfix is as it was: start the daemons now, and run this command again")

// Apply applies a plan. If a step fails, the earlier steps are undone.
func (a *Applier) Apply(ctx context.Context, p *Plan) error {
	unlock, err := a.Journals.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if old, err := a.Journals.unfinished(); old != nil || err != nil {
		return errors.Join(errUnfinished, err)
	}
	if a.managed() {
		return a.apply(ctx, p)
	}
	waits := a.listening(ctx, p)
	if waits == nil {
		return a.apply(ctx, p)
	}
	settings := *p
	settings.Changes, settings.Imports = nil, nil
	if len(p.Files) > 0 {
		if err := a.apply(ctx, &settings); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w (%w)", ErrNotRunning, waits)
}

// managed reports whether systemd starts the daemons.
func (a *Applier) managed() bool { return a.Services && systemdRuns() }

func (a *Applier) apply(ctx context.Context, p *Plan) error {
	if len(p.Changes) > 0 {
		if err := runCheck(ctx, p.Postfix.Dir); ctx.Err() != nil {
			return fmt.Errorf("%w; nothing was changed", context.Cause(ctx))
		} else if err != nil {
			return fmt.Errorf("Postfix finds a mistake in its settings before anything is changed: %w", err)
		}
	}
	j, err := a.prepare(ctx, p)
	if err != nil {
		return err
	}
	a.at("begin the journal")
	if err := a.Journals.begin(j); err != nil {
		return err
	}
	err = a.carryOut(ctx, p, j)
	if err == nil {
		j.Done = true
		a.at("end the journal")
		err = j.save()
	}
	if err != nil {
		a.Say("taking everything back")
		// The caller's context may be done. What was begun is undone all the same.
		ctx = context.WithoutCancel(ctx)
		err = errors.Join(err, a.takeBack(ctx, j))
		if a.restarted { // with what is taken back now
			err = errors.Join(err, a.reloadRunning(ctx, p, j))
		}
		return err
	}
	return nil
}

func (a *Applier) at(name string) {
	if a.step != nil {
		a.step(name)
	}
}

// errUnfinished: an unfinished run may have left half of its changes, and a plan must
// not be based on these.
var errUnfinished = errors.New("an earlier run was cut short; take it back with postern setup --undo")

// Recover undoes a run of apply that was cut short, and reports whether there was one.
// It must be called before a plan is made.
func (a *Applier) Recover(ctx context.Context) (recovered bool, err error) {
	unlock, err := a.Journals.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	j, err := a.Journals.unfinished()
	if j == nil || err != nil {
		return false, err
	}
	return true, a.takeBack(ctx, j)
}

// unfinished returns the run that was cut short, or nil. Only the latest can be.
func (j Journals) unfinished() (*journal, error) {
	all, err := j.all()
	if err != nil || len(all) == 0 || all[len(all)-1].Done {
		return nil, err
	}
	return all[len(all)-1], nil
}

// prepare computes every file before the first one is written.
func (a *Applier) prepare(ctx context.Context, p *Plan) (*journal, error) {
	j := &journal{Postfix: p.Postfix.Dir, Time: time.Now().UTC(), Changes: p.Changes, Reload: p.Reload}
	for _, f := range p.Files {
		w, err := a.written(f)
		if err != nil {
			return nil, err
		}
		j.Files = append(j.Files, w)
	}
	files, err := a.stage(ctx, p)
	if err != nil {
		return nil, err
	}
	j.Files = append(j.Files, files...)
	if a.managed() {
		j.Units, j.Ran, err = disabled(ctx, p.units())
	}
	return j, err
}

// written returns the journal's entry for one of our files.
func (a *Applier) written(f File) (written, error) {
	path, err := behindLinks(f.Path)
	if err != nil {
		return written{}, err
	}
	w := written{Path: path, Kind: f.Settings}
	if w.Before, err = look(path); err != nil {
		return w, err
	}
	if !w.Before.sameText(f.before) {
		return w, changedSince(path)
	}
	w.After = content{Exists: true, Text: f.Text, Mode: f.Mode, UID: os.Geteuid(), GID: os.Getegid()}
	if w.Before.Exists {
		w.After.Mode, w.After.UID, w.After.GID = w.Before.Mode, w.Before.UID, w.Before.GID
	} else if f.Owner != "" {
		if uid, gid, ok := lookupUser(f.Owner); ok {
			w.After.UID, w.After.GID = uid, gid
		} else {
			a.Say("there is no user %s yet: %s belongs to root until it is given to the daemon's user", f.Owner, f.Path)
		}
	}
	for folder := filepath.Dir(path); ; folder = filepath.Dir(folder) {
		if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) || folder == filepath.Dir(folder) {
			break
		}
		w.Folders = slices.Insert(w.Folders, 0, folder)
	}
	return w, nil
}

// changedSince is the error about a file that someone has changed since the plan was made
// from it. What they have written would be lost.
func changedSince(path string) error {
	return fmt.Errorf("%s has been changed since the plan was made; run this command again", path)
}

func lookupUser(name string) (uid, gid int, ok bool) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, false
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(uidErr, gidErr) == nil
}

// behindLinks returns the path of a file with symbolic links resolved. The file need
// not exist.
func behindLinks(path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return filepath.Abs(path)
	}
	return target, err
}

// stage has postconf(1) change copies of Postfix's files, and reads the copies.
func (a *Applier) stage(ctx context.Context, p *Plan) ([]written, error) {
	if len(p.Changes) == 0 {
		return nil, nil
	}
	dir, err := os.MkdirTemp(a.Journals.folder, "stage-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var files []written
	for _, name := range []string{"main.cf", "master.cf"} {
		w := written{Kind: name}
		if w.Path, err = behindLinks(filepath.Join(p.Postfix.Dir, name)); err != nil {
			return nil, err
		}
		if w.Before, err = look(w.Path); err != nil {
			return nil, err
		}
		if !bytes.Equal(w.Before.Text, p.Postfix.texts[name]) {
			return nil, changedSince(w.Path)
		}
		if err := os.WriteFile(filepath.Join(dir, name), w.Before.Text, 0o600); err != nil {
			return nil, err
		}
		files = append(files, w)
	}
	if err := edit(ctx, dir, p.Changes); err != nil {
		return nil, err
	}
	if err := asPlanned(ctx, dir, p.Changes); err != nil {
		return nil, err
	}
	for i, name := range []string{"main.cf", "master.cf"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files[i].After = files[i].Before
		files[i].After.Text, files[i].After.Modified = text, time.Time{}
	}
	return slices.DeleteFunc(files, func(w written) bool { return w.After.sameText(w.Before) }), nil
}

// edit applies changes to the files in a folder, which must be ours alone.
func edit(ctx context.Context, dir string, changes []Change) error {
	main, master, unset := []string{"-c", dir, "-e"}, []string{"-c", dir, "-P"}, []string{"-c", dir, "-X"}
	for _, c := range changes {
		if c.Unset {
			unset = append(unset, c.Name)
		} else if c.Service == "" {
			main = append(main, c.Name+"="+c.New)
		} else {
			master = append(master, c.Service+"/"+c.Name+"="+c.New)
		}
	}
	for _, args := range [][]string{main, master, unset} {
		if len(args) == 3 {
			continue
		}
		if err := errors.Join(endLines(dir), postconf.Settle(dir)); err != nil {
			return err
		}
		if _, _, err := postconf.Run(ctx, "postconf", args...); err != nil {
			return err
		}
	}
	return postconf.Settle(dir)
}

// endLines ends the last line of both files. postconf(1) writes a new parameter right
// behind the last character of main.cf, into the value or the comment that is there.
func endLines(dir string) error {
	for _, name := range []string{"main.cf", "master.cf"} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if len(text) == 0 || text[len(text)-1] == '\n' {
			continue
		}
		if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// asPlanned reads the files in a folder, and returns an error if they are not as
// planned.
func asPlanned(ctx context.Context, dir string, changes []Change) error {
	got, err := ReadPostfix(ctx, dir)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.Unset {
			if got.isSet(c.Name) {
				return fmt.Errorf("%s: it is still there after the change", c.where())
			}
			continue
		}
		value := got.main[c.Name]
		if c.Service != "" {
			i := slices.IndexFunc(got.services, func(s *Service) bool { return s.Key == c.Service })
			if i < 0 {
				return fmt.Errorf("%s: the service is gone after the change", c.where())
			}
			value = got.services[i].overrides[c.Name]
		}
		if !same(value, c.New) {
			return fmt.Errorf("%s: Postfix reads %q instead of %q", c.where(), value, c.New)
		}
	}
	return nil
}

// carryOut writes what the journal holds. Our files and daemons come first, so that
// Postfix never asks a daemon that does not run.
func (a *Applier) carryOut(ctx context.Context, p *Plan, j *journal) error {
	if err := j.makeFolders(); err != nil {
		return err
	}
	for i := range j.Files {
		if w := &j.Files[i]; !isPostfix(w.Kind) {
			a.at("write " + w.Path)
			if err := w.put(w.After); err != nil {
				return err
			}
		}
	}
	if a.managed() { // for the drop-ins
		if _, _, err := postconf.Run(ctx, "systemctl", "daemon-reload"); err != nil {
			return err
		}
	}
	for _, daemon := range p.Daemons {
		a.at("check " + daemon)
		if err := a.checkSettings(ctx, p, daemon); err != nil {
			return err
		}
	}
	a.at("start")
	if err := a.start(ctx, p, j); err != nil {
		return err
	}
	if err := a.listening(ctx, p); err != nil {
		return err
	}
	for _, i := range p.Imports {
		a.at("import")
		a.bringIn(ctx, i)
	}
	for i := range j.Files {
		if w := &j.Files[i]; isPostfix(w.Kind) {
			a.at("write " + w.Path)
			if err := w.put(w.After); err != nil {
				return err
			}
		}
	}
	a.at("postfix check")
	if err := a.checkPostfix(ctx, p.Postfix); err != nil {
		return err
	}
	a.at("reload")
	return errors.Join(a.reload(ctx, p.Postfix.Dir), a.reloadOthers(ctx, p.Reload))
}

func isPostfix(kind string) bool { return kind == "main.cf" || kind == "master.cf" }

// bringIn imports the data of another greylist. A failure is only a warning: it delays
// mail, but loses none.
func (a *Applier) bringIn(ctx context.Context, i Import) {
	if a.Import == nil {
		return
	}
	said, err := a.Import(ctx, i)
	if err != nil {
		a.Say("the memory of %s is not imported: %v", i.Program, err)
		return
	}
	a.Say("%s: %s", i.Program, said)
}

// runCheck has Postfix check its files. It prints what is wrong on a terminal only.
func runCheck(ctx context.Context, dir string) error {
	_, _, err := postconf.Run(ctx, "postfix", "-c", dir, "check")
	if err != nil {
		return fmt.Errorf("%w; Postfix's log has the reason, and so has postfix -c %s check on a terminal", err, dir)
	}
	return nil
}

// checkPostfix has Postfix check its files, and returns an error if there are new
// warnings.
func (a *Applier) checkPostfix(ctx context.Context, before *Postfix) error {
	if err := runCheck(ctx, before.Dir); err != nil {
		return err
	}
	now, err := ReadPostfix(ctx, before.Dir)
	if err != nil {
		return err
	}
	for warning := range now.warnings {
		if !before.warnings[warning] {
			return fmt.Errorf("Postfix complains about the new settings: %s", warning)
		}
	}
	return nil
}

// reload has Postfix reload its files, if it runs.
func (a *Applier) reload(ctx context.Context, dir string) error {
	if _, _, err := postconf.Run(ctx, "postfix", "-c", dir, "status"); ctx.Err() != nil {
		return err // it may run
	} else if err != nil {
		a.Say("this Postfix is not running; it has the new settings when it is started")
		return nil
	}
	_, _, err := postconf.Run(ctx, "postfix", "-c", dir, "reload")
	return err
}

// checkSettings has a daemon check its settings with the rights that it will have: those
// that systemd gives its unit, or else those of the user.
func (a *Applier) checkSettings(ctx context.Context, p *Plan, daemon string) error {
	d, user := a.Policyd, a.User
	if daemon == Milterd {
		d, user = a.Milterd, cmp.Or(p.MilterdUser, a.User)
	}
	path, err := a.binary(d.Program.Name)
	if err != nil {
		return err
	}
	args := []string{"--check-config", "--config", d.Config}
	var as *syscall.Credential
	var variables []string
	if a.managed() {
		if as, variables, err = rightsOf(ctx, d.Program.Name+".service"); err != nil {
			return err
		}
	}
	if _, _, ok := lookupUser(user); ok && os.Geteuid() == 0 && as == nil {
		args = append(args, "--user", user)
	}
	if _, _, err := postconf.RunAs(ctx, as, variables, path, args...); err != nil {
		return fmt.Errorf("the settings of %s are not accepted: %w", d.Program.Name, err)
	}
	return nil
}

// binary returns the path of one of our daemons.
func (a *Applier) binary(name string) (string, error) {
	dirs := postconf.Folders()
	if self, err := os.Executable(); err == nil {
		dirs = append([]string{filepath.Dir(self)}, dirs...)
	}
	if a.Binaries != "" {
		dirs = []string{a.Binaries}
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed; looked in %s", name, strings.Join(dirs, ", "))
}

// endpoints returns the sockets of the attached daemons that Postfix asks, or is going to.
func (a *Applier) endpoints(p *Plan) []string {
	var values strings.Builder
	for name := range p.Postfix.explicit {
		values.WriteString(p.Postfix.main[name] + "\n")
	}
	for _, s := range p.Postfix.services {
		for _, value := range s.overrides {
			values.WriteString(value + "\n")
		}
	}
	var all []string
	if slices.Contains(p.Daemons, Policyd) {
		all = append(all, a.Policy)
	}
	if slices.Contains(p.Daemons, Milterd) {
		all = append(all, a.Verify, a.Sign)
	}
	return slices.DeleteFunc(all, func(endpoint string) bool { return !strings.Contains(values.String(), endpoint) })
}

// listening returns an error unless the daemons listen that changes lead to. Otherwise
// Postfix would answer every user with a 451 while a milter that it names is away.
func (a *Applier) listening(ctx context.Context, p *Plan) error {
	if len(p.Changes) == 0 {
		return nil
	}
	return a.reach(ctx, p)
}

// reach connects to each socket that Postfix asks.
func (a *Applier) reach(ctx context.Context, p *Plan) error {
	for _, endpoint := range a.endpoints(p) {
		if err := dial(ctx, endpoint, p.Postfix.value("queue_directory")); err != nil {
			return fmt.Errorf("no daemon listens at %s: %w", endpoint, err)
		}
	}
	return nil
}

// Listening returns an error unless the daemons listen where a Postfix asks them to which
// nothing is to be changed.
func (a *Applier) Listening(ctx context.Context, p *Plan) error {
	if err := a.reach(ctx, p); err != nil {
		return fmt.Errorf("%w; start it, or ask postern doctor what is wrong", err)
	}
	return nil
}

// dialTimeout bounds how long a daemon of this machine may take to accept a connection.
const dialTimeout = 5 * time.Second

func dial(ctx context.Context, endpoint, queue string) error {
	kind, address, _ := strings.Cut(endpoint, ":")
	network := "tcp"
	if kind == "unix" {
		network = "unix"
		if !filepath.IsAbs(address) {
			address = filepath.Join(queue, address)
		}
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return conn.Close()
}
