package config

import (
	"os"
	"time"
)

// Snapshot is the state in which files were read, to know later whether reading
// them again would give the same.
type Snapshot struct {
	files map[string]fileID
	fresh bool
}

// TakeSnapshot notes the state of files that have been read since a time. A file
// that is not there is noted too.
func TakeSnapshot(since time.Time, files ...string) Snapshot {
	s := Snapshot{files: make(map[string]fileID, len(files))}
	for _, name := range files {
		id := stat(name)
		s.files[name] = id
		// It may have changed between being read and being looked at here.
		s.fresh = s.fresh || id.changed.After(since.Add(-clockSlack)) || id.modified.After(since.Add(-clockSlack))
	}
	return s
}

// Unchanged reports whether every file is as it was. A file that was changed
// while it was read counts as changed.
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

func stat(name string) fileID {
	info, err := os.Stat(name)
	if err != nil {
		return fileID{}
	}
	id := identify(info)
	id.modified, id.changed = info.ModTime(), changeTime(info)
	return id
}
