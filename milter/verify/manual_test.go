package verify

import (
	"os"
	"strings"
	"testing"
)

// milter/DMARC.md has exactly the table that decides.
func TestManualHasTheTable(t *testing.T) {
	text, err := os.ReadFile("../DMARC.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), Table()) {
		t.Errorf("milter/DMARC.md has another table than\n%s", Table())
	}
}
