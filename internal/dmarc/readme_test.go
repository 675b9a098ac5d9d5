package dmarc

import (
	"os"
	"strings"
	"testing"
)

// The README prints the table that decides, and no other.
func TestReadmeHasTheTable(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), Table()) {
		t.Errorf("the README has another table than\n%s", Table())
	}
}
