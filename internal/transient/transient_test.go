package transient

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestIs(t *testing.T) {
	dir := t.TempDir()
	_, noFile := os.Open(filepath.Join(dir, "file"))
	_, noFolder := os.Open(filepath.Join(dir, "folder", "file"))
	_, relative := os.Open("no-such-folder/file")
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	_, inUse := net.Listen("tcp", held.Addr().String())
	plain := errors.New("no such word")
	tests := []struct {
		name string
		err  error
		want bool
	}{
		{"nothing", nil, false},
		{"a mistake", plain, false},
		{"marked", Mark(plain), true},
		{"marked, in another", fmt.Errorf("store: %w", Mark(plain)), true},
		{"among others", errors.Join(plain, Mark(plain)), true},
		{"port in use", inUse, true},
		{"disk full", &os.PathError{Op: "write", Path: "/x", Err: syscall.ENOSPC}, true},
		{"a file that is missing", noFile, false},
		{"a folder that is missing", fmt.Errorf("table: %w", noFolder), true},
		{"a relative path", relative, false},
		{"no rights", os.ErrPermission, false},
		{"a name that does not resolve", &net.DNSError{Err: "no such host", Name: "x"}, true},
	}
	for _, tt := range tests {
		if got := Is(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if Mark(nil) != nil || Mark(plain).Error() != plain.Error() || !errors.Is(Mark(plain), plain) {
		t.Error("Mark changes more than the class")
	}
}
