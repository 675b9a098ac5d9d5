// Undo: taking Postern off again.

package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/postconf"
)

// ErrNothing is returned when there is nothing to undo.
var ErrNothing = errors.New("postern setup has changed nothing here")

// Undo takes back every run of apply, the latest first.
func (a *Applier) Undo(ctx context.Context) error {
	unlock, err := a.Journals.lock()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := a.Journals.all()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("%w: no journal in %s", ErrNothing, a.Journals.folder)
	}
	defer a.sayOnce()()
	for _, j := range slices.Backward(all) {
		if err := a.takeBack(ctx, j); ctx.Err() != nil && err != nil {
			return fmt.Errorf("%w; the rest is not taken off yet: run postern setup --undo again", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// sayOnce has each message said once, because several runs have written the same files. It
// returns a function that ends this.
func (a *Applier) sayOnce() (end func()) {
	say, said := a.Say, make(map[string]bool)
	a.Say = func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !said[text] {
			said[text] = true
			say("%s", text)
		}
	}
	return func() { a.Say = say }
}

// undone is a file and the content that undo writes.
type undone struct {
	*written
	text content
	now  content
}

// takeBack undoes one run. That run may have been cut short at any point, and so may an
// earlier attempt to undo it.
func (a *Applier) takeBack(ctx context.Context, j *journal) error {
	files, err := a.workOut(ctx, j)
	if err != nil {
		return err
	}
	postfix, own := partition(files)
	worked := runCheck(ctx, j.Postfix) == nil // if not, others may have broken a file
	for _, f := range slices.Backward(postfix) {
		a.at("restore " + f.Path)
		if err := f.put(f.text); err != nil {
			return err
		}
	}
	if err := checkUndone(ctx, j, worked, postfix); err != nil {
		return err
	}
	a.at("reload")
	if err := a.reload(ctx, j.Postfix); err != nil {
		return err
	}
	other, err := a.Journals.heir(j.Time)
	switch {
	case err != nil:
		return err
	case other != nil:
		a.Say("the daemons and their settings stay: the Postfix in %s asks them too", other.Postfix)
		if err := other.inherit(j); err != nil {
			return err
		}
	default:
		a.at("stop")
		if err := a.stopAfter(ctx, j, own); err != nil {
			return err
		}
	}
	a.at("forget")
	if err := os.Remove(j.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// stopAfter stops the daemons that apply started, and restores their files.
func (a *Applier) stopAfter(ctx context.Context, j *journal, own []undone) error {
	if err := a.stop(ctx, j); err != nil {
		return err
	}
	for _, f := range slices.Backward(own) {
		a.at("restore " + f.Path)
		if err := f.put(f.text); err != nil {
			return err
		}
	}
	if a.managed() {
		if _, _, err := postconf.Run(ctx, "systemctl", "daemon-reload"); err != nil {
			return err
		}
	}
	return a.reloadOthers(ctx, j.Reload)
}

// partition separates the files of Postfix from ours.
func partition(files []undone) (postfix, own []undone) {
	for _, f := range files {
		if isPostfix(f.Kind) {
			postfix = append(postfix, f)
		} else {
			own = append(own, f)
		}
	}
	return postfix, own
}

// checkUndone has Postfix check its files. If the check fails, and did not before, they
// are put back as they were found.
func checkUndone(ctx context.Context, j *journal, worked bool, files []undone) error {
	if !worked {
		return nil
	}
	err := runCheck(ctx, j.Postfix)
	if err == nil {
		return nil
	}
	for _, f := range files {
		err = errors.Join(err, f.put(f.now))
	}
	return err
}

// workOut computes the new content of each file before any file is changed.
func (a *Applier) workOut(ctx context.Context, j *journal) ([]undone, error) {
	var all []undone
	for i := range j.Files {
		w := &j.Files[i]
		now, err := look(w.Path)
		if err != nil {
			return nil, err
		}
		u := undone{written: w, now: now}
		if w.After.Exists && !now.Exists && strings.HasSuffix(w.Path, ".private") {
			a.Say("%s is not there any more: if a rotation has replaced it, its record is revoked or removed, and a program that signs with it again needs the key that is beside it now", w.Path)
		}
		switch {
		case now.sameText(w.Before) || now.sameText(w.After):
			u.text = w.Before
		case isPostfix(w.Kind):
			u.text, err = a.withoutOurs(ctx, j, w, now)
		case w.Kind != "":
			u.text, err = a.withoutSettings(w, now)
		default:
			a.Say("%s was changed since, and stays", w.Path)
			u.text = now
		}
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

// withoutOurs returns a file of Postfix that others have changed since, without our
// changes.
func (a *Applier) withoutOurs(ctx context.Context, j *journal, w *written, now content) (content, error) {
	master := w.Kind == "master.cf"
	text, left := takeOut(string(now.Text), string(w.Before.Text), string(w.After.Text), master)
	if len(left) > 0 {
		merged, err := a.mergeLeft(ctx, j, w, text, left)
		if err != nil {
			return now, err
		}
		text = merged
	}
	if ours := a.mentions(text) - a.mentions(string(w.Before.Text)); ours > 0 {
		return now, fmt.Errorf("%s was changed since, and %d of its lines name Postern and were not written by setup; take them out and run postern setup --undo again. What was changed (-: as setup left it, +: now):\n%s",
			w.Path, ours, difference(w.After.Text, now.Text))
	}
	a.Say("%s was changed since: only the lines of Postern are taken out", w.Path)
	now.Text, now.Modified = []byte(text), time.Time{}
	return now, nil
}

// mentions counts the lines that name our sockets or parameters.
func (a *Applier) mentions(text string) (count int) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for _, name := range []string{a.Policy, a.Verify, a.Sign, ourNames} {
			if name != "" && strings.Contains(line, name) {
				count++
				break
			}
		}
	}
	return count
}

// mergeLeft has postconf(1) undo our changes in the entries that others have changed
// after us. It works on a copy.
func (a *Applier) mergeLeft(ctx context.Context, j *journal, w *written, text string, left []string) (string, error) {
	dir, err := os.MkdirTemp(a.Journals.folder, "stage-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	other := "master.cf"
	if w.Kind == other {
		other = "main.cf"
	}
	beside, err := os.ReadFile(filepath.Join(j.Postfix, other))
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(dir, other), beside, 0o600), os.WriteFile(filepath.Join(dir, w.Kind), []byte(text), 0o600), postconf.Settle(dir))
	}
	if err != nil {
		return "", err
	}
	now, err := ReadPostfix(ctx, dir)
	if err != nil {
		return "", err
	}
	for _, c := range j.Changes {
		if c.Service == "" == (w.Kind == "main.cf") && slices.Contains(left, entryOf(c)) {
			if err := a.mergeOne(ctx, dir, now, c); err != nil {
				return "", err
			}
		}
	}
	merged, err := os.ReadFile(filepath.Join(dir, w.Kind))
	return string(merged), err
}

// entryOf returns the key of the entry that holds a parameter.
func entryOf(c Change) string {
	if c.Service != "" {
		return c.Service
	}
	return c.Name
}

// mergeOne undoes the change of one parameter.
func (a *Applier) mergeOne(ctx context.Context, dir string, now *Postfix, c Change) error {
	value, there := now.main[c.Name], now.isSet(c.Name)
	set, unset, target := "-e", "-X", c.Name
	if c.Service != "" {
		set, unset, target = "-P", "-PX", c.Service+"/"+c.Name
		i := slices.IndexFunc(now.services, func(s *Service) bool { return s.Key == c.Service })
		if i < 0 {
			return nil
		}
		value, there = now.services[i].overrides[c.Name], now.services[i].has(c.Name)
	}
	back, ours := c.Old, same(value, c.New)
	if !ours {
		back, ours = mergeBack(value, c.Old, c.New)
	}
	switch {
	case !there || !ours:
		a.Say("%s was changed since, and stays: %s", c.where(), value)
		return nil
	case !c.WasSet && (same(value, c.New) || back == "" || same(back, c.Old)):
		_, _, err := postconf.Run(ctx, "postconf", "-c", dir, unset, target)
		return err
	}
	if c.Service == "" {
		_, _, err := postconf.Run(ctx, "postconf", "-c", dir, set, target+"="+back)
		return err
	}
	if joined := strings.Join(postconf.Split(back), ","); !strings.ContainsAny(joined, " \t{") {
		_, _, err := postconf.Run(ctx, "postconf", "-c", dir, set, target+"="+joined)
		return err
	}
	return setSpaced(ctx, dir, target, back)
}

// setSpaced sets a parameter of a service to a value with white space in it, which
// postconf(1) refuses to write into master.cf. It writes a word in its place, whose
// option is then spelled with braces.
func setSpaced(ctx context.Context, dir, target, value string) error {
	const word = ourNames + "value_to_restore"
	if _, _, err := postconf.Run(ctx, "postconf", "-c", dir, "-P", target+"="+word); err != nil {
		return err
	}
	file := filepath.Join(dir, "master.cf")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	name := target[strings.LastIndexByte(target, '/')+1:]
	restored := strings.Replace(string(text), name+"="+word, "{ "+name+" = "+value+" }", 1)
	return errors.Join(os.WriteFile(file, []byte(restored), 0o600), postconf.Settle(dir))
}

// withoutSettings returns a file of settings that others have changed since, without
// the settings that still have our values.
func (a *Applier) withoutSettings(w *written, now content) (content, error) {
	if !now.Exists {
		return now, nil // someone has removed the file
	}
	current, err := config.ParseDocument(w.Path, now.Text)
	if err != nil {
		return now, err
	}
	ours, err := config.ParseDocument(w.Path, w.After.Text)
	if err != nil {
		return now, err
	}
	before, err := config.ParseDocument(w.Path, w.Before.Text)
	if err != nil {
		return now, err
	}
	var remove, stay []string
	var set []config.Line
	for _, name := range current.Keys() {
		if current.Get(name) != ours.Get(name) && current.Get(name) != before.Get(name) {
			stay = append(stay, name)
		}
	}
	if len(stay) > 0 {
		a.Say("%s was changed since: what setup has written is taken out, and what others have set stays: %s", w.Path, strings.Join(stay, ", "))
	}
	for _, name := range ours.Keys() {
		was := before.Get(name)
		switch {
		case current.Get(name) != ours.Get(name) || was == ours.Get(name):
		case was == "":
			remove = append(remove, name)
		default:
			set = append(set, config.Line{Name: name, Text: was})
		}
	}
	for _, name := range before.Keys() {
		if ours.Get(name) == "" && current.Get(name) == "" {
			set = append(set, config.Line{Name: name, Text: before.Get(name)})
		}
	}
	text := string(current.Edit(remove, set, "As it was before postern setup."))
	if above := "\n# " + setComment + "\n"; !strings.Contains(string(w.Before.Text), above) {
		text = strings.ReplaceAll(text, above, "") // what is still below it is not ours
	}
	now.Text, now.Modified = []byte(text), time.Time{}
	return now, nil
}

// difference returns the difference of two texts, as diff(1) prints it.
func difference(before, after []byte) string {
	dir, err := os.MkdirTemp("", "postern-setup-")
	if err != nil {
		return err.Error()
	}
	defer os.RemoveAll(dir)
	a, b := filepath.Join(dir, "setup"), filepath.Join(dir, "now")
	if err := errors.Join(os.WriteFile(a, before, 0o600), os.WriteFile(b, after, 0o600)); err != nil {
		return err.Error()
	}
	path, err := postconf.Program("diff")
	if err != nil {
		return err.Error()
	}
	var out bytes.Buffer
	cmd := exec.Command(path, "-u", "--label", "as setup left it", "--label", "now", a, b)
	cmd.Stdout = &out
	_ = cmd.Run() // status 1: the texts differ
	return out.String()
}
