package postmap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/postern-mail/postern/internal/postmap/mapfile"
)

// compileGrace is how long after an edit postmap(1) is ordinarily run. A compiled
// file that is newer by more may have been made from something else.
const compileGrace = time.Minute

// compiledFiles gives the names postmap(1) writes for a table type.
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

// explainMissing adds the fix when only the compiled table was left behind.
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

// warnCompiled says when text and compiled file may differ: Postfix answers from
// the one, this package from the other.
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
