package setup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// CarryOut carries a plan out as an Applier does, without the daemons: our files, and both files
// of Postfix.
func CarryOut(t *testing.T, p *Plan) {
	t.Helper()
	for _, f := range p.Files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(f.Path), 0o755), os.WriteFile(f.Path, f.Text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := edit(t.Context(), p.Postfix.Dir, p.Changes); err != nil {
		t.Fatal(err)
	}
	if err := asPlanned(t.Context(), p.Postfix.Dir, p.Changes); err != nil {
		t.Fatal(err)
	}
}
