package sign

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/postern-mail/postern/internal/private"
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
		link, err := private.ReadLink(path)
		if err != nil {
			return nil, err
		}
		if link.To == "" || !link.Trusted {
			return openInside(dir, domain, link)
		}
		if !filepath.IsAbs(link.To) {
			link.To = filepath.Join(dir, link.To)
		}
		dir, domain = filepath.Split(filepath.Clean(link.To))
		if domain == "" {
			return os.OpenRoot(dir)
		}
	}
	return nil, &fs.PathError{Op: "open", Path: filepath.Join(dir, domain), Err: syscall.ELOOP}
}

// openInside opens a folder in dir and does not leave dir.
func openInside(dir, name string, link private.Link) (*os.Root, error) {
	parent, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	root, err := parent.OpenRoot(name)
	path := filepath.Join(dir, name)
	switch {
	case err != nil && link.To != "":
		return nil, fmt.Errorf("%s is a symbolic link of another user to %s; if it is meant so, give it to root: chown -h root %s", path, link.To, path)
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: path, Err: cause(err)}
	}
	return root, nil
}

// cause returns an error without the path that a root gives it, which is not the whole one.
func cause(err error) error {
	if at := (*fs.PathError)(nil); errors.As(err, &at) {
		return at.Err
	}
	return err
}
