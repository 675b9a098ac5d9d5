package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The shells ask the command itself what may follow.
func TestCompletions(t *testing.T) {
	tests := []struct {
		line string
		want []string
		file bool // the shell goes on with names of files
	}{
		{"", []string{"completion", "config", "dkim", "dmarc", "dnsbl", "doctor", "explain", "greylist", "help", "limits", "log", "owners", "ready", "reload", "replay", "restart", "setup", "version"}, false},
		{"dk", []string{"dkim"}, false},
		{"owners ", []string{"check", "list", "reload"}, false},
		{"owners check ", nil, false},
		{"dkim genkey --ty", []string{"--type"}, false},
		{"dkim genkey --type ", []string{"both", "ed25519", "rsa"}, false},
		{"greylist list --kind ", []string{"clients", "triplets"}, false},
		{"completion ", []string{"bash", "fish", "zsh"}, false},
		{"explain message ", nil, true},
	}
	for _, tt := range tests {
		code, out, _ := postern(t, append([]string{"__completeNoDesc"}, strings.Split(tt.line, " ")...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		directive := lines[len(lines)-1]
		got := slices.Sorted(slices.Values(lines[:len(lines)-1]))
		if code != exitYes || !slices.Equal(got, tt.want) || (directive == ":0") != tt.file {
			t.Errorf("%q: exit %d, %q", tt.line, code, out)
		}
	}
}

// Each script is one that its shell reads, where the shell is installed.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		code, out, stderr := postern(t, "completion", shell)
		if code != exitYes || stderr != "" || !strings.Contains(out, "__complete") {
			t.Errorf("%s: exit %d, %s", shell, code, stderr)
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		file := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
		if said, err := exec.CommandContext(t.Context(), path, "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v, %s", shell, err, said)
		}
	}
	if code, out, stderr := postern(t, "completion", "csh"); code != exitFailed || out != "" || stderr != "postern completion: no completion for shell \"csh\"; there is one for bash, zsh and fish\n" {
		t.Errorf("another shell: exit %d, %q, %q", code, out, stderr)
	}
}
