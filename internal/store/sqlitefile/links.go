package sqlitefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/postern-mail/postern/internal/private"
)

// maxLinks is how many symbolic links may lead to a file, as in Linux.
const maxLinks = 40

// target returns the path of the file behind symbolic links. A link is followed only if
// it belongs to root or to the user of this process. The folder of the file may belong
// to another user, such as that of the daemons when root writes the file, and that user
// must not choose what is written.
func target(path string) (string, error) {
	for range maxLinks {
		link, err := private.ReadLink(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if link.To == "" {
			return path, errors.Join(noLink(path+logSuffix), noLink(path+indexSuffix), noLink(path+journalSuffix))
		}
		if !link.Trusted {
			return "", fmt.Errorf("%s is a symbolic link of another user: name the file itself, or remove the link", path)
		}
		if !filepath.IsAbs(link.To) {
			link.To = filepath.Join(filepath.Dir(path), link.To)
		}
		path = link.To
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
