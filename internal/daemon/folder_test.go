package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Root makes the folder of a socket for the user that the daemon becomes; a folder
// that is there, and one below another that is missing, are left alone.
func TestMakeFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes folders for others")
	}
	top := t.TempDir()
	folder := filepath.Join(top, "postern")
	for _, uid := range []int{1234, 4321} { // the second finds it there
		MakeFolder(Endpoint{Network: NetworkUnix, Address: filepath.Join(folder, "a.sock")}, &Identity{UID: uid, GID: 1234})
		info, err := os.Stat(folder)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Uid; got != 1234 || info.Mode().Perm() != 0o755 {
			t.Errorf("%s belongs to %d, mode %v", folder, got, info.Mode())
		}
	}
	MakeFolder(Endpoint{Network: NetworkUnix, Address: filepath.Join(top, "no", "such", "a.sock")}, nil)
	if _, err := os.Stat(filepath.Join(top, "no")); err == nil {
		t.Error("more than one folder was made")
	}
}

// A link that took the place of a folder which root has just made is not followed.
func TestGiveFolderFollowsNoLink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes folders for others")
	}
	top := t.TempDir()
	system, link := filepath.Join(top, "system"), filepath.Join(top, "postern")
	if err := errors.Join(os.Mkdir(system, 0o755), os.Symlink(system, link)); err != nil {
		t.Fatal(err)
	}
	giveFolder(link, Identity{UID: 1234, GID: 1234})
	info, err := os.Stat(system)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Sys().(*syscall.Stat_t).Uid; got != 0 {
		t.Errorf("the folder that the link names belongs to %d", got)
	}
}
