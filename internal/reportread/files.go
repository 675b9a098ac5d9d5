package reportread

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Path reads a file, or all files of a folder and the folders below it. Of a Maildir, it
// reads cur, new and the subfolders.
func (r *Reader) Path(ctx context.Context, name string) error {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return r.problem(ctx, name, err)
	case info.IsDir():
		return r.folder(ctx, name)
	}
	return r.file(ctx, name, true)
}

func (r *Reader) file(ctx context.Context, name string, named bool) error {
	in, err := os.Open(name)
	if err != nil {
		return r.problem(ctx, name, err)
	}
	defer in.Close()
	return r.stream(ctx, name, in, named)
}

// folder reads the files below root, which may be a symbolic link. It follows no link
// below it, because another user may control the folder.
func (r *Reader) folder(ctx context.Context, root string) error {
	root += string(filepath.Separator) // WalkDir enters no link
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return r.problem(ctx, name, err)
		}
		switch {
		case name == root:
			return nil
		case d.IsDir():
			return r.enter(name)
		case !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") || isMaildir(filepath.Dir(name)):
			return nil // files directly in a Maildir are indexes and settings
		}
		return r.file(ctx, name, false)
	})
}

// enter returns fs.SkipDir if the folder is not to be read.
func (r *Reader) enter(name string) error {
	base, parent := filepath.Base(name), filepath.Dir(name)
	inMaildir := isMaildir(parent)
	switch {
	case inMaildir && base == "tmp": // mails that are being written
		return fs.SkipDir
	case strings.HasPrefix(base, ".") && !inMaildir:
		return fs.SkipDir
	}
	return nil
}

func isMaildir(name string) bool {
	for _, part := range []string{"cur", "new"} {
		if info, err := os.Stat(filepath.Join(name, part)); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

// Paths reads all of names; "-" is standard input.
func (r *Reader) Paths(ctx context.Context, names []string) error {
	for _, name := range names {
		read := r.Path
		if name == "-" {
			read = func(ctx context.Context, _ string) error { return r.Stream(ctx, "standard input", r.Stdin) }
		}
		if err := read(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
