// Man writes the manual pages of the daemons and the command. It takes the flags from
// the output of --help, so that none can be missing:
//
//	man FOLDER-OF-PROGRAMS FOLDER-OF-PAGES
//
// It is a separate program, so that it is not part of the daemons.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: man FOLDER-OF-PROGRAMS FOLDER-OF-PAGES")
		os.Exit(2)
	}
	if err := write(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

// write writes all pages to folder/manN.
func write(ctx context.Context, programs, folder string) error {
	for _, p := range pages() {
		help := func(args ...string) (string, error) {
			out, err := exec.CommandContext(ctx, filepath.Join(programs, p.name), args...).Output()
			if err != nil {
				return "", fmt.Errorf("%s %q: %w", p.name, args, err)
			}
			return string(out), nil
		}
		text, err := p.render(help)
		if err != nil {
			return err
		}
		section := filepath.Join(folder, fmt.Sprintf("man%d", p.section))
		if err := os.MkdirAll(section, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(section, fmt.Sprintf("%s.%d", p.name, p.section)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
