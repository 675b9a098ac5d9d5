package sqlitefile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/transient"
)

// fileOfChild names the file that TestOpenInAChild opens.
const fileOfChild = "POSTERN_TEST_OPEN"

// Without descriptors SQLite says only that it cannot open a file. That passes, however few
// there are: it is no mistake of the settings.
func TestFewDescriptors(t *testing.T) {
	if _, err := exec.LookPath("prlimit"); err != nil {
		t.Fatal(err) // of util-linux, which every machine has
	}
	path := filepath.Join(t.TempDir(), "notes.db")
	start(t, path).stop(t)
	refused := 0
	// With fewer, Go's runtime does not start.
	for files := 12; files < 40; files++ {
		child := exec.Command("prlimit", fmt.Sprintf("--nofile=%d", files), os.Args[0], "-test.run=^TestOpenInAChild$")
		child.Env = append(os.Environ(), fileOfChild+"="+path)
		out, err := child.CombinedOutput()
		if err == nil {
			break
		}
		if !strings.Contains(string(out), "passes: true") {
			t.Errorf("%d descriptors: %s", files, out)
		}
		if strings.Contains(string(out), "unable to open") {
			refused++
		}
	}
	if refused == 0 {
		t.Error("SQLite could open its files each time")
	}
}

// TestOpenInAChild is a process of TestFewDescriptors, and nothing without it.
func TestOpenInAChild(t *testing.T) {
	path := os.Getenv(fileOfChild)
	if path == "" {
		return
	}
	k, err := Open(Options{Path: path, Schema: schema, Report: func(Event) {}}, newNotes())
	if err != nil {
		t.Fatalf("passes: %t: %v", transient.Is(err), err)
	}
	if err := k.Close(); err != nil {
		t.Fatalf("passes: %t: %v", transient.Is(err), err)
	}
}

// What a person must correct stays a mistake, and is named.
func TestCannotOpenForever(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.db")
	start(t, path).stop(t)
	if err := os.Mkdir(path+logSuffix, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Options{Path: path, Schema: schema, Report: func(Event) {}}, newNotes())
	if err == nil || transient.Is(err) || !strings.Contains(err.Error(), path+logSuffix+" is no regular file") {
		t.Errorf("error %v", err)
	}
}
