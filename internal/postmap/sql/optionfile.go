package sql

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postmap/mapfile"
	"github.com/postern-mail/postern/internal/private"
)

// Bounds of option files.
const (
	maxIncludes   = 64
	maxOptionLine = 64 << 10
)

// defaultFiles are where MySQL's and MariaDB's clients look.
var defaultFiles = []string{"/etc/my.cnf", "/etc/mysql/my.cnf"}

// options are the settings of option files, by name with "_" written as "-".
type options struct {
	values map[string]string
	groups []string
	files  []string // that were read
	secret bool     // the file that is being read holds a password
}

// readOptions reads the groups of an option file, or of the usual ones if there
// is none. A missing usual file is no error.
func readOptions(file, group string) (*options, error) {
	o := &options{values: map[string]string{}, groups: []string{"client", "client-server", "client-mariadb"}}
	if group != "" && !slices.Contains(o.groups, group) {
		o.groups = append(o.groups, group)
	}
	switch {
	case file != "":
		return o, o.read(file)
	case group == "":
		return o, nil
	}
	for _, name := range defaultFiles {
		if err := o.read(name); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return nil, err
		}
	}
	return o, nil
}

func (o *options) read(path string) error {
	if slices.Contains(o.files, path) {
		return nil
	}
	if len(o.files) >= maxIncludes {
		return fmt.Errorf("more than %d option files", maxIncludes)
	}
	file, err := mapfile.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	o.files = append(o.files, path)
	raw, err := os.Open(path)
	if err != nil {
		return err
	}
	defer raw.Close()
	if o.secret, err = false, o.parse(path, raw); err != nil || !o.secret {
		return err
	}
	return private.CheckShared(path, file.Info, "the password")
}

func (o *options) parse(path string, in io.Reader) error {
	s := bufio.NewScanner(in)
	s.Buffer(nil, maxOptionLine)
	number, wanted := 0, false
	for s.Scan() {
		number++
		line := strings.Trim(s.Text(), mapfile.Space)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			name, _, _ := strings.Cut(line[1:], "]")
			wanted = slices.Contains(o.groups, name)
		case strings.HasPrefix(line, "!include"):
			if err := o.include(line); err != nil {
				return fmt.Errorf("%s: %w", mapfile.Where(path, number), err)
			}
		case wanted:
			name, value, _ := strings.Cut(line, "=")
			name = strings.ReplaceAll(strings.Trim(name, mapfile.Space), "_", "-")
			o.values[name] = unquote(strings.Trim(value, mapfile.Space))
			o.secret = o.secret || name == "password"
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (o *options) include(line string) error {
	verb, name, _ := strings.Cut(line, " ")
	name = strings.Trim(name, mapfile.Space)
	if verb == "!include" {
		return o.read(name)
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".cnf") {
			if err := o.read(filepath.Join(name, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// unquote removes quotes, or a comment after a value without quotes.
func unquote(value string) string {
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		value = value[1 : n-1]
	} else if i := strings.Index(value, " #"); i >= 0 {
		value = strings.TrimRight(value[:i], mapfile.Space)
	}
	return strings.NewReplacer(`\\`, `\`, `\s`, " ", `\t`, "\t", `\n`, "\n", `\r`, "\r", `\b`, "\b").Replace(value)
}

// or returns the first value that is not empty: the table file's, then the option's.
func (o *options) or(value, name string) string {
	if value != "" {
		return value
	}
	return o.values[name]
}
