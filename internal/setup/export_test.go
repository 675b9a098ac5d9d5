package setup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// CarryOut carries a plan out as an Applier does, without the daemons: our files, and both files
// of Postfix. Postfix must not warn of them.
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
	now, err := ReadPostfix(t.Context(), p.Postfix.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for warning := range now.warnings {
		if !p.Postfix.warnings[warning] && p.Manual == nil { // else apply is not for it
			t.Errorf("apply would take it back, because Postfix warns: %s", warning)
		}
	}
}
