package sign

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxFolderLinks bounds a chain of symbolic links in place of the folder of a domain.
const maxFolderLinks = 8

// OpenDomainFolder opens the folder of a domain in the folder of all keys. What is done in
// it by its methods stays in it.
//
// The folder of all keys may belong to the daemon's user, while root makes or replaces
// keys in it. So a symbolic link in place of the domain's folder leads out of the folder of
// all keys only if it belongs to root or to the user of this process.
func OpenDomainFolder(dir, domain string) (*os.Root, error) {
	for range maxFolderLinks {
		path := filepath.Join(dir, domain)
		link, err := readLink(path)
		if err != nil {
			return nil, err
		}
		if link.to == "" || !link.trusted {
			return openInside(dir, domain, link)
		}
		if !filepath.IsAbs(link.to) {
			link.to = filepath.Join(dir, link.to)
		}
		dir, domain = filepath.Split(filepath.Clean(link.to))
		if domain == "" {
			return os.OpenRoot(dir)
		}
	}
	return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir, domain), Err: syscall.ELOOP}
}

// openInside opens a folder in dir and does not leave dir.
func openInside(dir, name string, link folderLink) (*os.Root, error) {
	parent, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	root, err := parent.OpenRoot(name)
	path := filepath.Join(dir, name)
	switch {
	case err != nil && link.to != "":
		return nil, fmt.Errorf("%s is a symbolic link of another user to %s; if it is meant so, give it to root: chown -h root %s", path, link.to, path)
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: path, Err: cause(err)}
	}
	return root, nil
}

// folderLink is what a symbolic link says; the zero value is that of another file.
type folderLink struct {
	to      string
	trusted bool // it belongs to root or to the user of this process
}

// readLink reads what is at a path. Owner and target are those of the same link, also
// when it is replaced meanwhile.
func readLink(path string) (folderLink, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return folderLink{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return folderLink{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		return folderLink{}, nil
	}
	to := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", to)
	if err != nil {
		return folderLink{}, &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	return folderLink{string(to[:n]), stat.Uid == 0 || int(stat.Uid) == os.Geteuid()}, nil
}

// cause returns an error without the path that a root gives it, which is not the whole one.
func cause(err error) error {
	if at := (*fs.PathError)(nil); errors.As(err, &at) {
		return at.Err
	}
	return err
}
