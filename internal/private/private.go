// Package private checks that other users cannot read or replace a file with a
// secret, nor lead by a link to another one.
package private

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Check returns an error for a file that other users can read or replace. As with
// OpenDKIM, the members of group may read it; -1 is no group. An access control
// list may allow the process's own user. what is the secret, for the error: "the
// private key".
func Check(path string, info fs.FileInfo, group int, what string) error {
	return check(path, info, os.Geteuid(), group, what)
}

func check(path string, info fs.FileInfo, user, group int, what string) error {
	mode := info.Mode().Perm()
	allowed, err := accessOf(path, mode, user, group)
	if err != nil {
		return err
	}
	ofGroup := fs.FileMode(0)
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && group >= 0 && int(sys.Gid) == group {
		ofGroup = 4
	}
	who := ""
	switch {
	case mode&0o007 != 0:
		who = "everybody"
	case allowed.group&^ofGroup != 0:
		who = "the group"
	case allowed.others != "":
		return fmt.Errorf("%s: its access control list lets %s access %s; setfacl -b %s", path, allowed.others, what, path)
	default:
		return checkFolders(path, what)
	}
	return fmt.Errorf("%s: mode %04o lets %s access %s; chmod 0600 %s", path, mode, who, what, path)
}

// checkFolders returns an error for a file in a folder where every user can
// replace it. For a symbolic link it checks both folders.
func checkFolders(path, what string) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for _, folder := range []string{filepath.Dir(path), filepath.Dir(target)} {
		info, err := os.Stat(folder)
		if err != nil {
			return err
		}
		if mode := info.Mode(); mode&0o002 != 0 && mode&fs.ModeSticky == 0 {
			return fmt.Errorf("%s: mode %04o of %s lets everybody replace %s; chmod o-w %s", path, mode.Perm(), folder, what, folder)
		}
	}
	return nil
}

// CheckShared returns an error for a file that every user can read or replace. It
// is for files that other programs read too, through their own group, such as
// Postfix's table files.
func CheckShared(path string, info fs.FileInfo, what string) error {
	mode := info.Mode().Perm()
	if mode&0o007 == 0 {
		return checkFolders(path, what)
	}
	return fmt.Errorf("%s: mode %04o lets everybody access %s; chmod o-rwx %s", path, mode, what, path)
}
