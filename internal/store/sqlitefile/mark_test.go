package sqlitefile

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestIntact shows which files are not checked at the next start.
func TestIntact(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(t *testing.T, path string)
		want bool
	}{
		"nothing has happened": {func(*testing.T, string) {}, true},
		"renamed twice": {func(t *testing.T, path string) {
			if err := errors.Join(os.Rename(path, path+".old"), os.Rename(path+".old", path)); err != nil {
				t.Fatal(err)
			}
		}, true},
		"one octet written, at once": {func(t *testing.T, path string) { overwrite(t, path, []byte("S"), false) }, false},
		"written by SQLite":          {foreignRow, false},
		"replaced by a copy":         {func(t *testing.T, path string) { replace(t, path, read(t, path)) }, false},
		"an old log beside it": {func(t *testing.T, path string) {
			if err := os.WriteFile(path+logSuffix, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
		"its next owner was killed": {func(t *testing.T, path string) {
			k, err := Open(Options{Path: path, Schema: schema}, newNotes())
			if err != nil {
				t.Fatal(err)
			}
			close(k.stop)
			k.done.Wait()
			if err := k.file.close(); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "notes.db")
			l := start(t, path)
			l.note(t, "before")
			l.stop(t)
			if err := unix.Setxattr(path, "user.test", nil, 0); errors.Is(err, unix.ENOTSUP) {
				t.Skip("this file system has no extended attributes, so every file is checked")
			}
			test.do(t, path)
			f, err := openFile(t.Context(), schema, path, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer f.close()
			if f.isIntact != test.want {
				t.Errorf("intact: %v, want %v", f.isIntact, test.want)
			}
		})
	}
}

// foreignRow changes a database as an administrator does.
func foreignRow(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec("UPDATE notes SET old = 7")
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}
