package manual

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Before make installs or builds anything it says that Go is missing or too old,
// and where to get it.
func TestGoIsAskedForFirst(t *testing.T) {
	tests := []struct{ name, version, want string }{
		{"missing", "", "there is no Go here"},
		{"Debian 12's", "go version go1.19.8 linux/amd64", "Go 1.19.8 is too old"},
		{"newer than go.mod asks for", "go version go1.100.1 linux/amd64", ""},
		{"of a vendor", "go version go1.26.1-X:foo linux/amd64", ""},
		{"broken", "Segmentation fault", "says nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "go")
			if tt.version != "" {
				if err := os.WriteFile(program, []byte("#!/bin/sh\necho '"+tt.version+"'\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), root+"/.ci/go")
			cmd.Env = append(os.Environ(), "GO="+program)
			out, err := cmd.CombinedOutput()
			said := string(out)
			if tt.want == "" {
				if err != nil || said != "" {
					t.Errorf("%v, %s", err, said)
				}
				return
			}
			if err == nil || !strings.Contains(said, tt.want) || !strings.Contains(said, "https://go.dev/dl/") || strings.Count(said, "\n") != 1 {
				t.Errorf("%v, %s", err, said)
			}
		})
	}
	setup := strings.Index(makefile(t), "\ntest: go setup")
	if setup < 0 || !strings.Contains(makefile(t), "\ntry: go ##") {
		t.Error("make test and make try do not ask for Go first")
	}
}

func makefile(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(root + "/Makefile")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
