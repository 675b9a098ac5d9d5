package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeGo notes what it is asked to build, and builds nothing.
const fakeGo = `#!/bin/sh
case $1 in
list) echo / ;;
build) shift $(($# - 1)) && echo "$1" >>"$BUILT" ;;
esac
`

// The builds have their time, however short the limit of the rest is: on a small machine
// with an empty cache they take minutes.
func TestBuildsAreNotLimited(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(fakeGo), 0o755); err != nil {
		t.Fatal(err)
	}
	built := filepath.Join(dir, "built")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("BUILT", built)
	t.Setenv("TMPDIR", dir) // keeps the logs
	if err := run(t.Context(), io.Discard, time.Nanosecond); err == nil || !strings.Contains(err.Error(), "not done 1ns after the builds") {
		t.Error(err)
	}
	if text, err := os.ReadFile(built); err != nil || string(text) != "./cmd/postern\n./cmd/postern-policyd\n./cmd/postern-milterd\n" {
		t.Errorf("built %q, %v", text, err)
	}
}
