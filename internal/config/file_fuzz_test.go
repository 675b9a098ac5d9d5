package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever is in a file, there is no panic. The result is either settings whose
// description can be loaded again, or errors of one line, each with a line number
// in the file.
func FuzzFile(f *testing.F) {
	seeds, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range seeds {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{
		"", "\r", "\x00", "a", "=", "a=", "[", "[[", "{", "\"", "'''", "#\x01", "\ufeff", "a.b.c=1", "\"\"=1", "deadline=\"\\ud800\"",
		strings.Repeat("[", 20000), "owners=" + strings.Repeat("[", 20000), "owners=[" + strings.Repeat("\"x\",", 1000) + "]\nuser=\"\"",
		"deadline = \"8s\"\r\nowners = [ # why\r\n\"hash:/a\" ]\r\n", "ratio=nan", "ratio=-inf", "dnsbl-threshold=+1",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c settings
		s := newSet(c.program(""))
		var l problems
		for _, a := range s.parseFile("f.toml", data, &l) {
			l.addError(s.assign(a))
		}
		lines := strings.Count(string(data), "\n") + 1
		for _, err := range l.list {
			var e *Error
			if !errors.As(err, &e) || e.Origin.Line < 1 || e.Origin.Line > lines || strings.ContainsAny(e.Error(), "\n\r") {
				t.Fatalf("%q: %#v", data, err)
			}
		}
		if l.err() == nil {
			describeAgain(t, s)
		}
	})
}

func describeAgain(t *testing.T, s *Set) {
	var out, out2 strings.Builder
	if err := s.Describe(&out); err != nil {
		t.Fatal(err)
	}
	var c settings
	s2 := newSet(c.program(""))
	var l problems
	for _, a := range s2.parseFile("f.toml", []byte(out.String()), &l) {
		l.addError(s2.assign(a))
	}
	if err := l.err(); err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	s2.origins = s.origins
	if err := s2.Describe(&out2); err != nil || out.String() != out2.String() {
		t.Fatalf("%v\nfirst\n%s\nthen\n%s", err, out.String(), out2.String())
	}
}
