package config

import (
	"maps"
	"os"
	"time"
)

// Snapshot is the state of files when they were read. It shows later whether they
// have changed.
type Snapshot struct {
	files map[string]fileID
	fresh bool
}

// TakeSnapshot takes the state of files that have been read since a time. It
// includes files that do not exist.
func TakeSnapshot(since time.Time, files ...string) Snapshot {
	s := Snapshot{files: make(map[string]fileID, len(files))}
	for _, name := range files {
		id := stat(name)
		s.files[name] = id
		// The file may have changed after it was read and before this check.
		s.fresh = s.fresh || id.changed.After(since.Add(-clockSlack)) || id.modified.After(since.Add(-clockSlack))
	}
	return s
}

// Unchanged reports whether no file has changed. A file that was changed while it
// was read counts as changed.
func (s Snapshot) Unchanged() bool {
	if s.fresh {
		return false
	}
	for name, id := range s.files {
		if stat(name) != id {
			return false
		}
	}
	return true
}

// Same reports whether two snapshots show the same files in the same state.
func (s Snapshot) Same(other Snapshot) bool { return maps.Equal(s.files, other.files) }

// Unsettled returns the time until all files that have changed since the snapshot
// count as complete; 0 when they do. A file is complete when it was not written
// for the time rest. A file that was renamed into place is complete at once, and
// so is the text of a table whose compiled form is newer.
func (s Snapshot) Unsettled(now time.Time, rest time.Duration) (wait time.Duration) {
	for name, before := range s.files {
		id := stat(name)
		if id == before && !s.fresh || id == (fileID{}) {
			continue
		}
		if age := now.Sub(id.modified); age >= 0 && age < rest && !id.renamedOver(before) && !isCompiled(name, id) {
			wait = max(wait, rest-age)
		}
	}
	return wait
}

// renamedOver reports whether the file replaced another one by a rename. A rename
// changes the inode later than the text was written.
func (f fileID) renamedOver(before fileID) bool {
	return !f.same(before) && f.changed.After(f.modified)
}

// isCompiled reports whether postmap(1) has compiled the text of a table after it
// was written.
func isCompiled(name string, text fileID) bool {
	for _, suffix := range []string{".db", ".lmdb", ".cdb"} {
		if compiled := stat(name + suffix); compiled != (fileID{}) && compiled.modified.After(text.modified) {
			return true
		}
	}
	return false
}

func stat(name string) fileID {
	info, err := os.Stat(name)
	if err != nil {
		return fileID{}
	}
	id := identify(info)
	id.modified, id.changed = info.ModTime(), changeTime(info)
	return id
}
