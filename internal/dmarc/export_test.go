package dmarc

import (
	"path/filepath"
	"strings"
	"testing"
)

// For the tests of package dmarc_test, which import package verify too.
var (
	CheckInvariants = checkInvariants
	NewZone         = newZone
	WalkNames       = walkNames
)

// EachGolden calls visit for each golden case with its fields and its verdict.
func EachGolden(t *testing.T, visit func(t testing.TB, fields map[string]string, v Result)) {
	files, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		z, cases := readGolden(t, file)
		for _, g := range cases {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+g.name, func(t *testing.T) {
				visit(t, g.fields, g.run(t, z).Verdict)
			})
		}
	}
}
