package setup

import (
	"path/filepath"
	"slices"

	"github.com/postern-mail/postern/internal/config"
)

// Wrote is a setting that apply has written into a file.
type Wrote struct {
	Path   string
	Values []string
}

// Wrote returns the files of settings into which apply has written a setting that was not
// there before, with the latest values. Only root may read the journals.
func (j Journals) Wrote(name string) ([]Wrote, error) {
	all, err := j.all()
	if err != nil {
		return nil, err
	}
	var found []Wrote
	for _, one := range all {
		for _, w := range one.Files {
			if w.Kind == "" || isPostfix(w.Kind) {
				continue
			}
			before, err := config.ParseDocument(w.Path, w.Before.Text)
			if err != nil {
				return nil, err
			}
			after, err := config.ParseDocument(w.Path, w.After.Text)
			if err != nil {
				return nil, err
			}
			if before.Get(name) == after.Get(name) {
				continue // by an earlier run, or by someone else
			}
			found = slices.DeleteFunc(found, func(f Wrote) bool { return f.Path == w.Path })
			if values := after.Values(name); values != nil {
				found = append(found, Wrote{w.Path, values})
			}
		}
	}
	return found, nil
}

// hasWritten reports whether the values that a setting has in a file now are those that the
// latest run of apply has given it, for this Postfix or another.
func (j Journals) hasWritten(path, setting string, values []string) (bool, error) {
	if resolved, err := behindLinks(path); err == nil {
		path = resolved
	}
	folders, err := filepath.Glob(filepath.Join(escapeGlob(j.root), "*"))
	if err != nil {
		return false, err
	}
	for _, folder := range folders {
		all, err := Journals{j.root, folder}.Wrote(setting)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(all, func(w Wrote) bool { return w.Path == path && slices.Equal(w.Values, values) }) {
			return true, nil
		}
	}
	return false, nil
}

// Attached reports whether setup has attached the daemons to this Postfix and not taken
// them off again, as far as the caller may read the journals.
func (j Journals) Attached() bool {
	all, err := j.all()
	return err == nil && slices.ContainsFunc(all, func(one *journal) bool { return one.Done })
}
