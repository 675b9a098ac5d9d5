package manual

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each promise of deploy/FAULTS.md names a test that is there.
func TestPromises(t *testing.T) {
	promises, err := Promises(root)
	if err != nil || len(promises) < 30 {
		t.Fatalf("%d promises, %v", len(promises), err)
	}
	for _, p := range promises {
		for _, test := range p.Tests {
			if !hasTest(t, test) {
				t.Errorf("%s: there is no %s in %s", p.Fault, test.Name, test.Package)
			}
		}
	}
}

func hasTest(t *testing.T, test Test) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, test.Package, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+test.Name+"(") {
			return true
		}
	}
	return false
}
