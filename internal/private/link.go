package private

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Link is a symbolic link; the zero value is any other file.
type Link struct {
	To string // what it says, from its folder on if it is relative
	// Trusted means that it belongs to root or to the user of this process. A folder in which
	// root works may belong to another user, whose links must not direct what root writes.
	Trusted bool
}

// ReadLink reads what is at a path. Owner and target are those of the same link, also
// when it is replaced meanwhile.
func ReadLink(path string) (Link, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Link{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return Link{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		return Link{}, nil
	}
	to := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", to)
	if err != nil {
		return Link{}, &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	return Link{string(to[:n]), stat.Uid == 0 || int(stat.Uid) == os.Geteuid()}, nil
}
