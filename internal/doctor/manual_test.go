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

// usualMistakes are those that the manual names, by the broken set-up of
// TestBrokenSetups that asserts what is found and how to fix it.
var usualMistakes = []string{
	"a socket outside of the chroot",
	"Debian's undefined parameter",
	"ownership behind permit_sasl_authenticated",
	"contexts without inner braces",
	"a port that no one listens on",
	"postgrey is still asked",
	"opendkim still signs",
	"all clients are one",
	"a public resolver",
	"the key is not in the DNS",
}

// The ten usual mistakes are in the manual, each with the check that finds it, and each
// is a broken set-up of the tests, whose finding has a fix.
func TestTenUsualMistakes(t *testing.T) {
	page, err := manual.Read("../..", "deploy/DOCTOR.md")
	if err != nil {
		t.Fatal(err)
	}
	text, ok := page.Section("## Ten usual mistakes")
	if !ok {
		t.Fatal("no section")
	}
	rows := manual.Rows(text)
	if len(rows) != len(usualMistakes) {
		t.Fatalf("the manual has %d mistakes, and the list %d", len(rows), len(usualMistakes))
	}
	for i, name := range usualMistakes {
		at := slices.IndexFunc(troubles(), func(c trouble) bool { return c.name == name })
		if at < 0 {
			t.Errorf("no test breaks a site with %q", name)
			continue
		}
		c := troubles()[at]
		if !strings.HasPrefix(rows[i].First, name) || !strings.HasPrefix(strings.TrimSpace(rows[i].Rest), "`"+c.check+"`") {
			t.Errorf("row %d of the manual is %q, %q; want %q, found by %s", i+1, rows[i].First, rows[i].Rest, name, c.check)
		}
		if c.text == "" || c.fix == "" {
			t.Errorf("the test of %q does not assert the finding and its fix", name)
		}
	}
}
