package setup

import (
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
