package sqlitefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxLinks is how many symbolic links may lead to a file, as in Linux.
const maxLinks = 40

// target returns the path of the file behind symbolic links. A link is followed only if
// it belongs to root or to the user of this process. The folder of the file may belong
// to another user, such as that of the daemons when root writes the file, and that user
// must not choose what is written.
func target(path string) (string, error) {
	for range maxLinks {
		info, err := os.Lstat(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			return path, errors.Join(noLink(path+logSuffix), noLink(path+indexSuffix), noLink(path+journalSuffix))
		}
		if s, ok := info.Sys().(*syscall.Stat_t); !ok || s.Uid != 0 && int(s.Uid) != os.Geteuid() {
			return "", fmt.Errorf("%s is a symbolic link of another user: name the file itself, or remove the link", path)
		}
		to, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", fmt.Errorf("%s: %w", path, syscall.ELOOP)
}

// noLink returns an error if there is a symbolic link at the path of a file that SQLite
// makes beside the database.
func noLink(path string) error {
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("%s is a symbolic link, which SQLite does not make: remove it", path)
	}
	return nil
}
