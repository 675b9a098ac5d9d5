package disktest

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestUnmountWaits has a file open for a moment, as a program that starts beside a test.
func TestUnmountWaits(t *testing.T) {
	f, err := os.Create(filepath.Join(Small(t), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { time.AfterFunc(unmountPause, func() { _ = f.Close() }) })
}
