package sqlitefile

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/store/disktest"
)

// newExt4 makes a small file system and returns the file that it is in. Without root or
// loop devices, the test is skipped.
func newExt4(t *testing.T) (image string) {
	t.Helper()
	if _, err := os.Stat("/dev/loop-control"); err != nil || os.Geteuid() != 0 {
		const cannot = "a file system needs root and loop devices"
		if os.Getenv("CI") != "" {
			t.Fatal(cannot)
		}
		t.Skip(cannot)
	}
	image = filepath.Join(t.TempDir(), "image")
	command(t, "truncate", "--size=16M", image)
	command(t, "mkfs.ext4", "-q", "-O", "^has_journal", image)
	return image
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// mount mounts the file system in an image, and returns its device.
func mount(t *testing.T, image, dir, options string) (device string) {
	t.Helper()
	device = command(t, "losetup", "--find", "--show", image)
	t.Cleanup(func() { command(t, "losetup", "--detach", device) })
	if err := syscall.Mount(device, dir, "ext4", 0, options); err != nil {
		t.Fatal(err)
	}
	return device
}

// flush writes all of a file system to its device.
func flush(t *testing.T, dir string) {
	t.Helper()
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if err := unix.Syncfs(int(folder.Fd())); err != nil {
		t.Fatal(err)
	}
}

// A file system that has become read-only by an error is checked and mounted anew, while
// the store is in use. Nothing is lost.
func TestFileSystemError(t *testing.T) {
	image, dir := newExt4(t), t.TempDir()
	device := mount(t, image, dir, "errors=remount-ro")
	path := filepath.Join(dir, "notes.db")
	l := start(t, path)
	l.note(t, "before")
	flush(t, dir)
	if err := os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(device), "trigger_fs_error"), []byte("a test"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.notes.set("meanwhile", "text of meanwhile")
	if e := l.heard(t, WriteFailing); !strings.Contains(e.Err.Error(), "read-only") {
		t.Errorf("reported %v", e.Err)
	}
	if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil { // the store has its file open
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if out, err := exec.Command("e2fsck", "-fy", image).CombinedOutput(); err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
	mount(t, image, dir, "")
	t.Cleanup(func() {
		if err := disktest.Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	l.heard(t, Replaced)
	l.heard(t, WritingAgain)
	l.stop(t)
	wantNotes(t, path, "before", "meanwhile")
}
