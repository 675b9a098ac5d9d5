// Package allowlist reads allow lists of clients, recipients and domains, which
// the administrator writes.
//
// An allow list is a text file with one entry a line; # begins a comment. The
// kind of list decides whether a name includes the names below it. An entry
// that cannot be read is an error with file and line. It is never an entry that
// matches nothing. Lists do not change after they are read.
package allowlist

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Bounds of a file.
const (
	maxFile = 4 << 20 // bytes
	maxLine = 1024    // bytes
)

// Read calls add for each entry of a file. Errors contain file and line.
func Read(path string, add func(entry string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return Parse(f, path, add)
}

// Parse is Read for a text. Errors use path as its name.
func Parse(r io.Reader, path string, add func(entry string) error) error {
	bounded := &io.LimitedReader{R: r, N: maxFile + 1}
	lines := bufio.NewScanner(bounded)
	lines.Buffer(nil, maxLine)
	n := 0
	for lines.Scan() {
		n++
		entry, _, _ := strings.Cut(lines.Text(), "#")
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		if err := add(entry); err != nil {
			return fmt.Errorf("%s:%d: %.80q: %w", path, n, entry, err)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%s:%d: a line of more than %d bytes", path, n+1, maxLine)
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case bounded.N == 0:
		return fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return nil
}
