// Package conf answers: what does this table file tell about its server?
//
// The tables that live in a server are described by a small file of
// "name = value" lines: mysql_table(5), pgsql_table(5), sqlite_table(5) and
// ldap_table(5) differ in the names only. A line that begins with white space
// continues the one before; of two lines with one name the last counts; nothing
// is expanded. This package reads the file ([Open]), the templates in it
// ([Expander]) and its domain list ([Conf.Domains]).
//
// Invariants:
//   - reading is bounded by package mapfile, values by [MaxValue];
//   - every parameter is asked for by name: what a map type does not know is
//     told by [Conf.Finish], so that nothing is skipped in silence;
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

// Conf is a table file. Parameters are marked as known when they are asked for.
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

// Open reads the file at path. warn hears what is worth a look but no error and
// may be nil. Postfix takes a name without "/" or "." in front for parameters in
// main.cf, which are not read here.
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
		if err := c.add(line); err != nil {
			return nil, err
		}
	}
}

func (c *Conf) add(line mapfile.Line) error {
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

// Lookup gives a parameter and whether the file has it.
func (c *Conf) Lookup(name string) (string, bool) {
	p := c.params[name]
	if p == nil {
		return "", false
	}
	p.known = true
	return p.value, true
}

// String gives a parameter, or missing if the file does not have it.
func (c *Conf) String(name, missing string) string {
	if value, ok := c.Lookup(name); ok {
		return value
	}
	return missing
}

// Secret gives a password, or "" if the file does not have it. A file that
// everybody can read or replace is no place for one; the error is kept for
// Finish.
func (c *Conf) Secret(name string) string {
	value, ok := c.Lookup(name)
	if ok && value != "" && c.info != nil {
		if err := private.CheckShared(c.Path, c.info, "the password"); err != nil {
			c.errs = append(c.errs, err)
		}
	}
	return value
}

// Int gives a number from low to high, or missing. A bad one is kept for Finish.
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

// Bool gives "yes" or "no" in any case, or missing. A bad one is kept for Finish.
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

// Where spells the place of a parameter, or of the file if it has none.
func (c *Conf) Where(name string) string {
	if p := c.params[name]; p != nil {
		return mapfile.Where(c.Path, p.line)
	}
	return c.Path
}

// Fail notes that a parameter cannot be done; Finish returns it.
func (c *Conf) Fail(name, what, fix string) {
	c.errs = append(c.errs, c.Error(name, what, fix))
}

// Error is an error about a parameter.
func (c *Conf) Error(name, what, fix string) error {
	e := &mapfile.Error{Path: c.Path, What: name + ": " + what, Fix: fix}
	if p := c.params[name]; p != nil {
		e.Line = p.line
	}
	return e
}

// Warn says something about a parameter that is no error.
func (c *Conf) Warn(name, what string) { c.warn(c.Where(name) + ": " + name + ": " + what) }

// Ignore marks parameters as known that change no answer, and says so.
func (c *Conf) Ignore(why string, names ...string) {
	for _, name := range names {
		if _, ok := c.Lookup(name); ok {
			c.Warn(name, why)
		}
	}
}

// Refuse makes parameters an error that cannot be done, unless their value is one
// of those that ask for nothing.
func (c *Conf) Refuse(fix string, harmless []string, names ...string) {
	for _, name := range names {
		if value, ok := c.Lookup(name); ok && !slices.Contains(harmless, strings.ToLower(value)) {
			c.Fail(name, "is not supported", fix)
		}
	}
}

// Finish gives the first thing that is wrong with the file. It warns of names
// that no one asked for: Postfix skips those without a word, misspelt ones
// included.
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
