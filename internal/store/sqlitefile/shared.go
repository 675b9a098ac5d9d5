package sqlitefile

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// sharedPause is the time between two tries to open a file that another process uses.
const sharedPause = 50 * time.Millisecond

// sharedWait is how long Update waits for the other process.
const sharedWait = 30 * time.Second

// Update opens or creates a file of a Shared schema, calls do, and closes the file. It
// waits while another process uses the file.
func Update(ctx context.Context, schema Schema, path string, do func(*File) error) error {
	_, err := os.Lstat(path)
	isNew := errors.Is(err, fs.ErrNotExist)
	f, err := waitFor(ctx, schema, path)
	if err != nil {
		return err
	}
	if isNew {
		err = giveToFolder(path)
	}
	if err == nil {
		err = do(f)
	}
	if err != nil {
		err = f.explain(err)
	}
	return errors.Join(err, f.close())
}

func waitFor(ctx context.Context, schema Schema, path string) (*File, error) {
	waiting, cancel := context.WithTimeout(ctx, sharedWait)
	defer cancel()
	for {
		f, err := openFile(ctx, schema, path, nil, nil)
		if !errors.Is(err, errInUse) {
			return f, err
		}
		select {
		case <-waiting.Done():
			return nil, err
		case <-time.After(sharedPause):
		}
	}
}

// giveToFolder makes a file that root has created readable for the owner of its
// folder.
func giveToFolder(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return os.Lchown(path, int(owner.Uid), int(owner.Gid))
}

// Look opens a file of a Shared schema for reading and calls do with it; it has no
// Writer. The error for a missing file is fs.ErrNotExist. Only SQLite may open the
// file: closing any other descriptor of it would end the locks of all readers in this
// process.
func Look(ctx context.Context, schema Schema, path string, do func(*File) error) (err error) {
	switch info, err := os.Stat(path); {
	case err != nil:
		return fmt.Errorf("%s store: %w", schema.Name, err)
	case !info.Mode().IsRegular(): // opening a pipe would wait
		return fmt.Errorf("%s store %s: it is no regular file", schema.Name, path)
	}
	f := &File{path: path, schema: schema}
	dsn, err := dsn(path)
	if err != nil {
		return err
	}
	if f.Reader, err = sql.Open("sqlite", dsn+"mode=ro&"+pragmas+readerPragmas); err != nil {
		return f.explain(err)
	}
	defer func() { err = errors.Join(err, f.Reader.Close()) }()
	switch version, err := schema.versionIn(ctx, f.Reader); {
	case err != nil:
		return f.explain(err)
	case version != schema.Version:
		return f.explain(fmt.Errorf("its version is %d, this release reads %d", version, schema.Version))
	}
	if err := do(f); err != nil {
		return f.explain(err)
	}
	return nil
}
