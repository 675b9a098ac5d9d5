// Package conf reads the file that describes a table in a server.
//
// The file has "name = value" lines; mysql_table(5), pgsql_table(5), sqlite_table(5)
// and ldap_table(5) differ only in the names. A line that begins with white space
// continues the one before. Of two lines with one name the last counts. Nothing is
// expanded. This package reads the file ([Open]), the templates in it ([Expander]) and
// its domain list ([Conf.Domains]).
//
// Invariants:
//   - reading is bounded by package mapfile, values by [MaxValue];
//   - every parameter is read by its name, and [Conf.Finish] warns of those that the
//     map type does not know, so that nothing is skipped silently;
//   - errors name path:line and the parameter, never a value that may be a
//     password.
package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/internal/postmap/mapfile"
	"github.com/postern-mail/postern/internal/private"
)

// MaxValue is the longest value of one parameter, in octets.
const MaxValue = 64 << 10

// Conf is a table file. Reading a parameter marks it as known.
type Conf struct {
	Path   string
	info   fs.FileInfo // of the file, nil when it was not opened here
	params map[string]*param
	warn   func(string)
	errs   []error
}

type param struct {
	value string
	line  int
	known bool
}

// Open reads the file at path. warn is called with each warning, and may be nil. For
// Postfix, a name without "/" or "." at the front means parameters in main.cf, which
// are not read here.
func Open(path string, warn func(string)) (*Conf, error) {
	if path[0] != '/' && path[0] != '.' {
		return nil, fmt.Errorf("%.80q is no path: parameters in main.cf are not read; move them into a file and write its path", path)
	}
	file, err := mapfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines, err := file.Lines()
	if err != nil {
		return nil, err
	}
	c, err := parse(path, lines, warn)
	if err == nil {
		c.info = file.Info
	}
	return c, err
}

// Parse reads a table file from in; path is for messages only.
func Parse(path string, in io.Reader, warn func(string)) (*Conf, error) {
	return parse(path, mapfile.NewScanner(path, in), warn)
}

func parse(path string, lines *mapfile.Scanner, warn func(string)) (*Conf, error) {
	if warn == nil {
		warn = func(string) {}
	}
	c := &Conf{Path: path, params: map[string]*param{}, warn: warn}
	for {
		line, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return nil, err
		}
		if err := c.addLine(line); err != nil {
			return nil, err
		}
	}
}

func (c *Conf) addLine(line mapfile.Line) error {
	name, value, ok := bytes.Cut(line.Text, []byte("="))
	name, value = bytes.Trim(name, mapfile.Space), bytes.Trim(value, mapfile.Space)
	problem := &mapfile.Error{Path: c.Path, Line: line.Number}
	switch {
	case !ok || len(name) == 0 || bytes.ContainsAny(name, mapfile.Space):
		problem.What, problem.Fix = "no parameter", "write: name = value"
	case !utf8.Valid(line.Text):
		problem.What, problem.Fix = "invalid UTF-8", "save the file as UTF-8"
	case len(value) > MaxValue:
		problem.What, problem.Fix = "value is too long", fmt.Sprintf("a value may have %d octets", MaxValue)
	}
	if problem.What != "" {
		return problem
	}
	if earlier := c.params[string(name)]; earlier != nil {
		c.warn(fmt.Sprintf("%s: %s overrides the one in line %d, as in Postfix", mapfile.Where(c.Path, line.Number), name, earlier.line))
	}
	c.params[string(name)] = &param{value: string(value), line: line.Number}
	return nil
}

// Lookup returns a parameter and whether the file has it.
func (c *Conf) Lookup(name string) (string, bool) {
	p := c.params[name]
	if p == nil {
		return "", false
	}
	p.known = true
	return p.value, true
}

// String returns a parameter, or missing if the file does not have it.
func (c *Conf) String(name, missing string) string {
	if value, ok := c.Lookup(name); ok {
		return value
	}
	return missing
}

// Secret returns a password, or "" if the file does not have it. A password in a file
// that everyone can read or replace is an error, which Finish returns.
func (c *Conf) Secret(name string) string {
	value, ok := c.Lookup(name)
	if ok && value != "" && c.info != nil {
		if err := private.CheckShared(c.Path, c.info, "the password"); err != nil {
			c.errs = append(c.errs, err)
		}
	}
	return value
}

// Int returns a number from low to high, or missing. Finish returns the error for
// another value.
func (c *Conf) Int(name string, missing, low, high int) int {
	value, ok := c.Lookup(name)
	if !ok {
		return missing
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		c.Fail(name, fmt.Sprintf("%.40q is not allowed", value), fmt.Sprintf("write a number from %d to %d", low, high))
		return missing
	}
	return n
}

// Bool returns whether a parameter is "yes" or "no", in upper or lower case, or
// missing. Finish returns the error for another value.
func (c *Conf) Bool(name string, missing bool) bool {
	value, ok := c.Lookup(name)
	switch {
	case !ok:
		return missing
	case strings.EqualFold(value, "yes"):
		return true
	case strings.EqualFold(value, "no"):
		return false
	}
	c.Fail(name, fmt.Sprintf("%.40q is not allowed", value), "write yes or no")
	return missing
}

// List returns the fields of a parameter that are separated by commas and white
// space, outside of braces.
func (c *Conf) List(name, missing string) []string {
	depth := 0
	return strings.FieldsFunc(c.String(name, missing), func(r rune) bool {
		switch r {
		case '{':
			depth++
		case '}':
			depth--
		}
		return depth <= 0 && strings.ContainsRune(separators, r)
	})
}

// separators are Postfix's CHARS_COMMA_SP.
const separators = ", \t\r\n"

// Where returns the place of a parameter, or the file if it does not have the
// parameter.
func (c *Conf) Where(name string) string {
	if p := c.params[name]; p != nil {
		return mapfile.Where(c.Path, p.line)
	}
	return c.Path
}

// Fail records an error about a parameter; Finish returns it.
func (c *Conf) Fail(name, what, fix string) {
	c.errs = append(c.errs, c.Error(name, what, fix))
}

// Error returns an error about a parameter.
func (c *Conf) Error(name, what, fix string) error {
	e := &mapfile.Error{Path: c.Path, What: name + ": " + what, Fix: fix}
	if p := c.params[name]; p != nil {
		e.Line = p.line
	}
	return e
}

// Wrap is Error with the cause below it, such as a file that cannot be read: whether a start
// is tried again depends on it.
func (c *Conf) Wrap(name string, cause error, fix string) error {
	err := c.Error(name, cause.Error(), fix)
	if e := (*mapfile.Error)(nil); errors.As(err, &e) {
		e.Err = cause
	}
	return err
}

// Warn passes on a warning about a parameter.
func (c *Conf) Warn(name, what string) { c.warn(c.Where(name) + ": " + name + ": " + what) }

// Ignore marks parameters that change no answer as known, and warns of them.
func (c *Conf) Ignore(why string, names ...string) {
	for _, name := range names {
		if _, ok := c.Lookup(name); ok {
			c.Warn(name, why)
		}
	}
}

// Refuse makes parameters that are not supported an error, unless their value is one of
// harmless.
func (c *Conf) Refuse(fix string, harmless []string, names ...string) {
	for _, name := range names {
		if value, ok := c.Lookup(name); ok && !slices.Contains(harmless, strings.ToLower(value)) {
			c.Fail(name, "is not supported", fix)
		}
	}
}

// Finish returns the first error of the file. It warns of parameters that were not
// read; Postfix skips those silently, even misspelt ones.
func (c *Conf) Finish() error {
	if len(c.errs) > 0 {
		return c.errs[0]
	}
	var unknown []string
	for name, p := range c.params {
		if !p.known {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		c.Warn(name, "is no parameter of this map type and changes nothing, here as in Postfix; is it misspelt?")
	}
	return nil
}
