// Package transient separates two reasons why a daemon cannot start: a mistake
// that a person must correct (exit status 78), and a temporary problem, which can
// end without a change of a setting (exit status 75, the unit tries again).
//
// Temporary problems are: a full disk, a port or a file that the predecessor
// still holds, an address or a folder that does not exist yet, a resolv.conf that
// is not written yet, and too few descriptors or too little memory. All other
// errors count as mistakes.
package transient

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Mark returns err as a temporary error. Its text stays the same.
func Mark(err error) error {
	if err == nil {
		return nil
	}
	return &marked{err}
}

type marked struct{ error }

func (m *marked) Unwrap() error { return m.error }

// passing returns the errors of the operating system that are temporary.
func passing() []error {
	return []error{
		syscall.EADDRINUSE, syscall.EADDRNOTAVAIL, // the predecessor; an interface that is not up
		syscall.ENOSPC, syscall.EDQUOT,
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EAGAIN,
		syscall.EIO, syscall.ESTALE, syscall.ENOTCONN, syscall.ETIMEDOUT, // a disk or mount in trouble
	}
}

// Is reports whether err, or an error that it wraps, is temporary.
func Is(err error) bool {
	if m := (*marked)(nil); errors.As(err, &m) {
		return true
	}
	for _, p := range passing() {
		if errors.Is(err, p) {
			return true
		}
	}
	if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
		return true
	}
	return folderMissing(err)
}

// folderMissing reports whether err is about a file whose folder does not exist.
// The folder may be mounted, or made by another unit, a little later. A missing
// file in an existing folder is a mistake.
func folderMissing(err error) bool {
	p := (*fs.PathError)(nil)
	if !errors.As(err, &p) || !errors.Is(p.Err, fs.ErrNotExist) || !filepath.IsAbs(p.Path) {
		return false
	}
	_, err = os.Stat(filepath.Dir(p.Path))
	return errors.Is(err, fs.ErrNotExist)
}
