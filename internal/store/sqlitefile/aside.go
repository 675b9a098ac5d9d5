package sqlitefile

import (
	"errors"
	"io"
	"os"
	"strconv"
	"time"
)

// setAside renames an unusable file and the files that belong to it, and returns the
// new name.
func setAside(path string, now time.Time, cause error) (string, error) {
	aside, err := freeName(path, now, cause)
	if err != nil {
		return "", err
	}
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	for _, part := range []string{logSuffix, indexSuffix} {
		if err := os.Rename(path+part, aside+part); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	return aside, nil
}

func freeName(path string, now time.Time, cause error) (string, error) {
	word := ".corrupt-"
	if errors.Is(cause, ErrForeign) {
		word = ".foreign-"
	}
	base := path + word + now.UTC().Format("20060102T150405Z")
	aside := base
	for n := 2; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, os.ErrNotExist) {
			return aside, nil
		} else if err != nil {
			return "", err
		}
		aside = base + "-" + strconv.Itoa(n)
	}
}

// copyAside copies the file to another name and removes it from its path. It reads
// through the descriptor of the lock, because closing another descriptor of the file
// would end SQLite's locks.
func (f *File) copyAside(now time.Time) (aside string, err error) {
	if aside, err = freeName(f.path, now, ErrForeign); err != nil {
		return "", err
	}
	to, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, io.NewSectionReader(f.lock, 0, 1<<62))
	if err = errors.Join(err, to.Close()); err != nil {
		return "", errors.Join(err, os.Remove(aside))
	}
	return aside, errors.Join(os.Remove(f.path), ignoreMissing(os.Remove(f.path+logSuffix)), ignoreMissing(os.Remove(f.path+indexSuffix)))
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
