package main

import (
	"strings"
	"testing"
)

// A group explains itself: with its own commands, and no others.
func TestHelpOfEachGroup(t *testing.T) {
	for _, g := range groups() {
		for _, args := range [][]string{{g.name, "--help"}, {g.name, "-h"}, {"help", g.name}} {
			code, out, stderr := postern(t, args...)
			if code != exitYes || stderr != "" || !strings.HasPrefix(out, g.help+"\n") {
				t.Errorf("%q: exit %d, %q, %q", args, code, out, stderr)
			}
			for _, c := range commands() {
				if shows, want := strings.Contains(out, "  postern "+c.path+" "), strings.HasPrefix(c.path, g.name+" "); shows != want {
					t.Errorf("%q: shows %s: %t", args, c.path, shows)
				}
			}
		}
	}
}

func TestHelpOfACommandByName(t *testing.T) {
	_, want, _ := postern(t, "owners", "check", "--help")
	if code, out, stderr := postern(t, "help", "owners", "check"); code != exitYes || out != want || stderr != "" {
		t.Errorf("exit %d, %q, %q", code, out, stderr)
	}
	if code, out, stderr := postern(t, "help", "nothing"); code != exitFailed || out != "" || !strings.HasPrefix(stderr, "postern: no command") {
		t.Errorf("an unknown one: exit %d, %q, %q", code, out, stderr)
	}
}
