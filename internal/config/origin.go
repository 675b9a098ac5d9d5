package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// maxErrors bounds how many errors one load reports. A last line has the number
// of the others.
const maxErrors = 20

// Level is one of the four places a value may come from.
type Level string

// The levels, lowest first.
const (
	Default     Level = "default"
	File        Level = "file"
	Environment Level = "environment"
	Flag        Level = "flag"
)

// Origin is where one value came from.
type Origin struct {
	Level Level
	Name  string // the file, the variable or the flag with its dashes; "" for a default
	Line  int    // of the file, from 1; 0 elsewhere
}

// String returns "path:line", "VARIABLE", "--flag" or "default".
func (o Origin) String() string {
	switch {
	case o.Name == "":
		return string(Default)
	case o.Line > 0:
		return fmt.Sprintf("%s:%d", o.Name, o.Line)
	default:
		return o.Name
	}
}

// Error is one mistake in the configuration. Its text is always one line.
type Error struct {
	Flag   string // without dashes; "" when the mistake belongs to no flag
	Origin Origin

	err    error
	redact func(string) string
}

// Error returns "file:line: flag: text", "VARIABLE: text" or "--flag: text".
func (e *Error) Error() string {
	text := e.err.Error()
	if e.redact != nil {
		text = e.redact(text)
	}
	where := e.Origin.String()
	switch {
	case e.Origin.Level == Default || e.Origin.Level == "":
		where = "--" + e.Flag
	case e.Origin.Level == File && e.Flag != "":
		where += ": " + e.Flag
	}
	return oneLine(where + ": " + text)
}

// Unwrap returns the wrapped error, whose text may be longer than a line.
func (e *Error) Unwrap() error { return e.err }

// oneLine escapes control characters of file names and values, which could harm a
// terminal or the lines of the log.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// problems collects errors up to maxErrors.
type problems struct {
	list []error
	more int
}

func (l *problems) addError(err error) {
	switch {
	case err == nil:
	case len(l.list) < maxErrors:
		l.list = append(l.list, err)
	default:
		l.more++
	}
}

func (l *problems) err() error {
	if l.more > 0 {
		return errors.Join(append(l.list, fmt.Errorf("and %d more errors", l.more))...)
	}
	return errors.Join(l.list...)
}

// password matches the password that a URL or a DSN may have after its address.
var password = regexp.MustCompile("(password=)[^&\\s\"']+")

// hidePasswords replaces the password of every URL in s by ***.
func hidePasswords(s string) string {
	s = password.ReplaceAllString(s, "${1}"+mask)
	var b strings.Builder
	for {
		i := strings.Index(s, "://")
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		i += len("://")
		b.WriteString(s[:i])
		s = s[i:]
		authority := s
		if end := strings.IndexAny(s, "/?# \t\"'`"); end >= 0 {
			authority = s[:end]
		}
		at := strings.LastIndexByte(authority, '@')
		if at < 0 {
			continue
		}
		if colon := strings.IndexByte(authority[:at], ':'); colon >= 0 {
			b.WriteString(s[:colon+1] + mask)
			s = s[at:]
		}
	}
}
