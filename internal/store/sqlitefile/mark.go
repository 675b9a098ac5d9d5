package sqlitefile

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// endMark is an extended attribute of the file. It has the state of the file at the
// end of its last owner. It belongs to the file itself, so a renamed file keeps it, and
// a copy made by another program usually has none.
const endMark = "user.postern.end"

// leaveMark marks the file, after SQLite has written all to it. A file that cannot be
// marked is checked at the next start.
//
// The clock of a file system has steps of some milliseconds. The file gets a time
// between two of them, so that a write that follows at once changes it.
func (f *File) leaveMark() {
	now := time.Now()
	if f.hasLogs() || os.Chtimes(f.path, time.Time{}, now) != nil {
		return
	}
	info, err := f.lock.Stat()
	if err != nil || !info.ModTime().Equal(now) { // this file system rounds its times
		return
	}
	_ = unix.Fsetxattr(int(f.lock.Fd()), endMark, []byte(stateOf(info)), 0)
}

// takeMark removes the mark, and reports whether nothing has written to the file since
// it was left. It comes before SQLite opens the file. A process that is killed later
// leaves no mark.
func (f *File) takeMark() bool {
	fd := int(f.lock.Fd())
	var mark [64]byte
	n, err := unix.Fgetxattr(fd, endMark, mark[:])
	if err != nil || unix.Fremovexattr(fd, endMark) != nil {
		return false
	}
	info, err := f.lock.Stat()
	return err == nil && string(mark[:n]) == stateOf(info) && !f.hasLogs()
}

// stateOf distinguishes two states of one file.
func stateOf(info os.FileInfo) string {
	return fmt.Sprint(info.Size(), " ", info.ModTime().UnixNano())
}

// hasLogs reports whether SQLite would read changes from a file beside this one.
func (f *File) hasLogs() bool {
	return lookAt(f.path+logSuffix) != glance{} || lookAt(f.path+journalSuffix) != glance{}
}
