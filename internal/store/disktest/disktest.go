// Package disktest makes small disks for tests.
package disktest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const (
	mebibytes = 16 // of the disk of a test

	unmountTries = 1000
	unmountPause = 10 * time.Millisecond
)

// Mount mounts a disk of a size in MiB on a folder, which only root can.
func Mount(dir string, size int) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", size)); err != nil {
		return fmt.Errorf("mount a small disk: %w: run as root", err)
	}
	return nil
}

// Unmount unmounts a disk on which no file is open. A program that is just being started
// has copies of all files of this process for a moment, so a disk that is in use is tried
// again.
func Unmount(dir string) error {
	var err error
	for range unmountTries {
		if err = syscall.Unmount(dir, 0); !errors.Is(err, syscall.EBUSY) {
			return err
		}
		time.Sleep(unmountPause)
	}
	return fmt.Errorf("unmount %s: a file is open there: %w", dir, err)
}

// Fill fills a small disk.
func Fill(dir string) error {
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return err
	}
	whole := make([]byte, int64(disk.Blocks)*disk.Bsize+1)
	if err := os.WriteFile(ballast(dir), whole, 0o600); !errors.Is(err, syscall.ENOSPC) {
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
	if err := Mount(dir, mebibytes); err != nil {
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
