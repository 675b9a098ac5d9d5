package main

import (
	"slices"
	"strings"
	"testing"
)

func TestWrap(t *testing.T) {
	tests := []struct {
		text string
		want []string
	}{
		{"", []string{""}},
		{"one two", []string{"one two"}},
		{"one two three", []string{"one two", "three"}},
		{"muchlongerthanthat two", []string{"muchlongerthanthat", "two"}},
		{"jürgen é three", []string{"jürgen é", "three"}},
	}
	for _, test := range tests {
		if got := wrap(test.text, 8); !slices.Equal(got, test.want) {
			t.Errorf("wrap(%q) is %q, want %q", test.text, got, test.want)
		}
	}
}

func TestPrintTable(t *testing.T) {
	var b strings.Builder
	printTable(&b, [][]string{{"A", "B", "C"}, {strings.Repeat("word ", 8), "x", "y"}})
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[1], "---") || !strings.HasSuffix(lines[2], "y") || strings.Contains(lines[3], "x") {
		t.Errorf("got\n%s", b.String())
	}
}
