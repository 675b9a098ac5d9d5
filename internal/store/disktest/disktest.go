// Package disktest makes small disks for tests.
package disktest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Mount mounts a disk of 16 MiB on a folder, which only root can.
func Mount(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		return fmt.Errorf("mount a small disk: %w: run as root", err)
	}
	return nil
}

// Unmount unmounts a disk.
func Unmount(dir string) error { return syscall.Unmount(dir, 0) }

// Fill fills a small disk.
func Fill(dir string) error {
	if err := os.WriteFile(ballast(dir), make([]byte, 32<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("the disk is not full: %w", err)
	}
	return nil
}

// Free frees what Fill has filled.
func Free(dir string) error { return os.Remove(ballast(dir)) }

func ballast(dir string) string { return filepath.Join(dir, "ballast") }

// Small mounts a small disk for a test. Without root, the test is skipped.
func Small(tb testing.TB) (dir string) {
	tb.Helper()
	dir = tb.TempDir()
	if err := Mount(dir); err != nil {
		if os.Getenv("CI") != "" {
			tb.Fatal(err)
		}
		tb.Skip(err)
	}
	tb.Cleanup(func() {
		if err := Unmount(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

// Filled fills the disk of a test until free is called.
func Filled(tb testing.TB, dir string) (free func()) {
	tb.Helper()
	if err := Fill(dir); err != nil {
		tb.Fatal(err)
	}
	return func() {
		if err := Free(dir); err != nil {
			tb.Error(err)
		}
	}
}
