// Package private answers: may others read or replace this file with a secret?
package private

import (
	"fmt"
	"io/fs"
	"syscall"
)

// Check refuses a file that someone else can read or replace. As with OpenDKIM,
// the members of group may read it; -1 is no group. what is the secret, for the
// error: "the private key".
func Check(path string, info fs.FileInfo, group int, what string) error {
	mode := info.Mode().Perm()
	allowed := fs.FileMode(0o700)
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && group >= 0 && int(sys.Gid) == group {
		allowed |= 0o040
	}
	if mode&^allowed == 0 {
		return nil
	}
	who := "the group"
	if mode&0o007 != 0 {
		who = "everybody"
	}
	return fmt.Errorf("%s: mode %04o lets %s at %s; chmod 0600 %s", path, mode, who, what, path)
}

// CheckShared refuses a file that everybody can read or replace. It is for files
// that other programs read too, by a group of their own: Postfix's table files.
func CheckShared(path string, info fs.FileInfo, what string) error {
	mode := info.Mode().Perm()
	if mode&0o007 == 0 {
		return nil
	}
	return fmt.Errorf("%s: mode %04o lets everybody at %s; chmod o-rwx %s", path, mode, what, path)
}
