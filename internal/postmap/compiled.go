package postmap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/postern-mail/postern/internal/postmap/mapfile"
)

// compileGrace is the usual time between an edit and the run of postmap(1). A compiled
// file that is newer by more than that may have been made from another text.
const compileGrace = time.Minute

// compiledFiles returns the names of the files that postmap(1) writes for a table type.
func compiledFiles(mapType, path string) []string {
	switch mapType {
	case "hash", "btree":
		return []string{path + ".db"}
	case "lmdb":
		return []string{path + ".lmdb"}
	case "cdb":
		return []string{path + ".cdb"}
	case "dbm", "sdbm":
		return []string{path + ".pag", path + ".dir"}
	}
	return nil
}

// explainMissing adds the fix when the compiled table exists but its text does not.
func explainMissing(path, mapType string, err error) error {
	var problem *mapfile.Error
	if !errors.As(err, &problem) || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, compiled := range compiledFiles(mapType, path) {
		if _, statErr := os.Stat(compiled); statErr == nil {
			problem.What = fmt.Sprintf("the text of the table is missing; only the compiled %s is there", compiled)
			problem.Fix = fmt.Sprintf("write the text back with: postmap -s %s:%s > %s", mapType, path, path)
		}
	}
	return err
}

// warnCompiled warns when text and compiled file may differ, because Postfix reads the
// compiled file and this package reads the text.
func warnCompiled(file *mapfile.File, o textOptions) {
	if o.Warn == nil {
		return
	}
	for _, compiled := range compiledFiles(o.Type, file.Path) {
		info, err := os.Stat(compiled)
		if err != nil {
			continue // nothing compiled: nothing to differ
		}
		switch later := info.ModTime().Sub(file.Info.ModTime()); {
		case later > compileGrace:
			o.Warn(fmt.Sprintf("%s is newer than its text %s (by %v), and the text is what is read here; if they differ, run: postmap %s:%s",
				compiled, file.Path, later.Round(time.Second), o.Type, file.Path))
		case later < 0:
			o.Warn(fmt.Sprintf("%s is older than its text %s: Postfix still answers from the older one; run: postmap %s:%s",
				compiled, file.Path, o.Type, file.Path))
		}
	}
}
