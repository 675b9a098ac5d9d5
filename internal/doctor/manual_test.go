package doctor

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/manual"
)

// The manual lists every check with what the list of checks says about it, in order.
func TestManual(t *testing.T) {
	page, err := manual.Read("../..", "deploy/DOCTOR.md")
	if err != nil {
		t.Fatal(err)
	}
	text, ok := page.Section("## Checks")
	if !ok {
		t.Fatal("no section")
	}
	var documented, known []string
	for _, row := range manual.Rows(text) {
		documented = append(documented, row.First+"|"+strings.TrimSpace(strings.TrimSuffix(row.Rest, "|")))
	}
	for _, c := range allChecks() {
		known = append(known, "`"+c.name+"`|"+c.about)
	}
	if !slices.Equal(documented, known) {
		t.Errorf("the manual has\n%q\nand the command\n%q", documented, known)
	}
}
