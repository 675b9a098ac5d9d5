package sqlitefile

import (
	"fmt"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// CheckFolder returns an error if no file can be written at a path, because its file
// system is mounted read-only. systemd makes it so for a unit that may not write there.
// It asks nothing about the rights of the process, which may not be the daemon's.
func CheckFolder(path string) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	folder := filepath.Dir(path)
	var fs unix.Statfs_t
	if err := unix.Statfs(folder, &fs); err == nil && fs.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("%s: %w; a unit of systemd may write below its StateDirectory= and in what ReadWritePaths= names", folder, syscall.EROFS)
	}
	return nil
}
