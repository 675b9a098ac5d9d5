package sqlitefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// Reasons why a file is not the one that was written last.
var (
	errGone    = errors.New("the file was removed")
	errOther   = errors.New("another file has taken its place")
	errChanged = errors.New("another program has written to it")
)

// glance distinguishes two states of a file without reading it.
type glance struct {
	dev, ino uint64
	size     int64
	changed  time.Time
}

// sight is a glance at the file and at its write-ahead log.
type sight struct{ main, log glance }

// The files that belong to a database have its name and a suffix.
const (
	logSuffix     = "-wal"
	indexSuffix   = "-shm"
	journalSuffix = "-journal" // of a Shared schema
)

// look returns the state of the files at a path. It is zero for one that is missing.
func look(path string) sight { return sight{lookAt(path), lookAt(path + logSuffix)} }

func lookAt(path string) glance {
	info, err := os.Stat(path)
	if err != nil {
		return glance{}
	}
	g := glance{size: info.Size(), changed: info.ModTime()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		g.dev, g.ino = uint64(s.Dev), s.Ino
	}
	return g
}

func (g glance) sameFile(o glance) bool { return g.dev == o.dev && g.ino == o.ino }

// untouched returns an error if the file has changed since the owner last wrote to
// it. Only the owner may write to it.
func (f *File) untouched() error {
	now := look(f.path)
	switch {
	case now.main == (glance{}):
		return errGone
	case !now.main.sameFile(f.seen.main):
		return errOther
	case now.log == (glance{}) && f.seen.log != (glance{}):
		return fmt.Errorf("%w: its -wal was removed", errChanged)
	case now != f.seen:
		return errChanged
	}
	return f.checkHeaders()
}

const (
	magic     = "SQLite format 3\x00"
	versionAt = 60 // PRAGMA user_version in the header
	idAt      = 68 // PRAGMA application_id
	header    = 100
	logMagic  = 0x377f0682 // or one more
)

// checkHeaders reads the beginnings of both files.
func (f *File) checkHeaders() error {
	var head [header]byte
	if _, err := f.lock.ReadAt(head[:], 0); err != nil {
		return fmt.Errorf("%w: %w", errChanged, err)
	}
	if string(head[:len(magic)]) != magic || binary.BigEndian.Uint32(head[idAt:]) != f.schema.ID {
		return errChanged
	}
	log, err := os.Open(f.path + logSuffix)
	if err != nil {
		return nil // there is none, or look has noticed that it is gone
	}
	defer log.Close()
	var first [4]byte
	if _, err := io.ReadFull(log, first[:]); err == nil && binary.BigEndian.Uint32(first[:])&^1 != logMagic {
		return fmt.Errorf("%w: its -wal", errChanged)
	}
	return nil
}

// isCopiedOver reports whether the file's own inode holds the database of
// another program now.
func (f *File) isCopiedOver() bool {
	var head [header]byte
	if _, err := f.lock.ReadAt(head[:], 0); err != nil {
		return false
	}
	return lookAt(f.path).sameFile(f.seen.main) && string(head[:len(magic)]) == magic && binary.BigEndian.Uint32(head[idAt:]) != f.schema.ID
}
