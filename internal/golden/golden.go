// Package golden reads golden cases for tests from files beside the code. A case says
// what is given, what is expected and why. There are three layouts:
//
//   - [List]: a world and many small cases in it, as lines of a key and a value;
//   - [Files]: a case a file, of such lines, then sections: each begins with a line
//     "== name", or the only one, "message", with an empty line;
//   - [Siblings]: a case is a message and files beside it, for cases that other
//     programs read too.
package golden

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// TB holds the methods of [testing.TB] that this package uses.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Field is one line: a key and a value. The value may be quoted, see [Text].
type Field struct {
	Key, Value string
	At         string // file:line, for messages
}

// Case is one test case.
type Case struct {
	Name     string
	Fields   []Field
	Sections map[string]string
}

// Get returns the value of the last field with a key, or "".
func (c *Case) Get(key string) string {
	value := ""
	for _, f := range c.Fields {
		if f.Key == key {
			value = f.Value
		}
	}
	return value
}

// List reads a file with several cases. A line "zone" begins the world, and a line
// "case NAME" begins a case. The lines of each are indented. Empty lines and lines that
// begin with "#" are ignored.
func List(t TB, path string) (zone []Field, cases []Case) {
	t.Helper()
	inZone := false
	for _, f := range fields(path, read(t, path)) {
		indented := strings.HasPrefix(f.Key, " ")
		f.Key = strings.TrimSpace(f.Key)
		switch {
		case !indented && f.Key == "zone":
			inZone = true
		case !indented && f.Key == "case":
			inZone = false
			cases = append(cases, Case{Name: f.Value})
		case inZone:
			zone = append(zone, f)
		case len(cases) == 0:
			t.Fatalf("%s: %q is before the first case", f.At, f.Key)
		default:
			last := &cases[len(cases)-1]
			last.Fields = append(last.Fields, f)
		}
	}
	return zone, cases
}

// Files reads one case from each file that matches a pattern.
func Files(t TB, pattern string) []Case {
	t.Helper()
	var cases []Case
	for _, path := range glob(t, pattern) {
		cases = append(cases, parseFile(path, read(t, path)))
	}
	return cases
}

// message is the name of the last section. The rest of the file is its text.
const message = "message"

// parseFile reads one case.
func parseFile(path, text string) Case {
	c := Case{Name: base(path), Sections: map[string]string{}}
	if !strings.Contains(text, "\n== "+message+"\n") {
		head, rest, _ := strings.Cut(text, "\n\n")
		c.Fields, c.Sections[message] = fields(path, head), rest
		return c
	}
	section := ""
	for section != message {
		line, rest, _ := strings.Cut(text, "\n")
		text = rest
		name, begins := strings.CutPrefix(line, "== ")
		if begins {
			section = name
		}
		if !begins {
			c.Sections[section] += line + "\n"
		} else if section != message {
			c.Sections[section] = ""
		}
	}
	c.Fields, c.Sections[message] = fields(path, c.Sections[""]), text
	delete(c.Sections, "")
	return c
}

// Siblings reads one case from each file that matches a pattern. The file is the
// section "message". The files with the other extensions are the sections of those
// names.
func Siblings(t TB, pattern string, extensions ...string) []Case {
	t.Helper()
	var cases []Case
	for _, path := range glob(t, pattern) {
		c := Case{Name: base(path), Sections: map[string]string{message: read(t, path)}}
		for _, e := range extensions {
			c.Sections[e] = read(t, strings.TrimSuffix(path, filepath.Ext(path))+"."+e)
		}
		cases = append(cases, c)
	}
	return cases
}

// Text returns a value without its quotes. A value may be bare, in double quotes with
// Go's escapes, or in backquotes, where a double quote needs no escape.
func Text(t TB, f Field) string {
	t.Helper()
	s := f.Value
	switch {
	case len(s) >= 2 && s[0] == '`' && s[len(s)-1] == '`':
		s = `"` + strings.ReplaceAll(s[1:len(s)-1], `"`, `\"`) + `"`
	case len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"':
		return s
	}
	out, err := strconv.Unquote(s)
	if err != nil {
		t.Fatalf("%s: %s: %v", f.At, s, err)
	}
	return out
}

// fields splits lines into keys and values. A key keeps its indentation.
func fields(path, text string) []Field {
	var all []Field
	for n, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' {
			continue
		}
		key, value, _ := strings.Cut(trimmed, " ")
		if line[0] == ' ' {
			key = " " + key
		}
		all = append(all, Field{key, strings.TrimSpace(value), path + ":" + strconv.Itoa(n+1)})
	}
	return all
}

func glob(t TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("golden: no file is %s (%v)", pattern, err)
	}
	return paths
}

func read(t TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("golden: %v", err)
	}
	return string(text)
}

func base(path string) string {
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}
