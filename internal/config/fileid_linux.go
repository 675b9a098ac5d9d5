package config

import (
	"os"
	"syscall"
	"time"
)

// fileID identifies a state of a file. The zero value means a file that does
// not exist.
type fileID struct {
	device, inode uint64
	size          int64
	modified      time.Time
	changed       time.Time // of the inode: a rename, a new mode
}

func identify(info os.FileInfo) fileID {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{size: info.Size(), modified: info.ModTime(), changed: info.ModTime()}
	}
	id := fileID{device: uint64(st.Dev), inode: st.Ino}
	if info.IsDir() {
		// The times of a directory change with every entry. The entries that
		// matter have their own fileID.
		return id
	}
	id.size, id.modified, id.changed = info.Size(), info.ModTime(), changeTime(info)
	return id
}

// changeTime returns when an inode was changed last, or the nearest known time.
func changeTime(info os.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return info.ModTime()
}

// same reports whether both are the same file, changed or not.
func (f fileID) same(other fileID) bool {
	return f.device == other.device && f.inode == other.inode
}
