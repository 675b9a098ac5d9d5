package config

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSnapshot(t *testing.T) {
	changes := map[string]func(path string) error{
		"written": func(path string) error { return os.WriteFile(path, []byte("other\n"), 0o600) },
		"replaced by the same": func(path string) error {
			if err := os.WriteFile(path+".new", []byte("text\n"), 0o600); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		},
		"removed":            os.Remove,
		"given another mode": func(path string) error { return os.Chmod(path, 0o644) },
		"put back to its time": func(path string) error {
			if err := os.WriteFile(path, []byte("txet\n"), 0o600); err != nil {
				return err
			}
			return os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0))
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "table")
			if err := os.WriteFile(path, []byte("text\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			long := time.Now().Add(time.Hour) // the file was there long before it was read
			s := TakeSnapshot(long, path)
			if !s.Unchanged() {
				t.Error("changed at once")
			}
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			if s.Unchanged() {
				t.Error("no change was seen")
			}
		})
	}
}

// A snapshot includes that a file does not exist yet.
func TestSnapshotOfAFileThatAppears(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	s := TakeSnapshot(time.Now(), path)
	if !s.Unchanged() {
		t.Error("no file: changed at once")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s.Unchanged() {
		t.Error("the new file was not seen")
	}
}

// A file that was written while it was read counts as changed, because it may
// have been read in part.
func TestSnapshotOfAFreshFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "table")
	began := time.Now()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if TakeSnapshot(began, path).Unchanged() {
		t.Error("a file that was written since the reading began counts as unchanged")
	}
}
