package golden

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestList(t *testing.T) {
	path := write(t, "a.txt", "# a world\nzone\n  a.example TXT \"x y\"\n\ncase one\n  ip 192.0.2.1\n  why it is so\ncase two\n  ip `a\\x20\"b`\n")
	zone, cases := List(t, path)
	if len(zone) != 1 || zone[0] != (Field{"a.example", `TXT "x y"`, path + ":3"}) {
		t.Errorf("%+v", zone)
	}
	if len(cases) != 2 || cases[0].Name != "one" || cases[0].Get("why") != "it is so" || cases[0].Get("none") != "" || cases[1].Fields[0].At != path+":9" {
		t.Errorf("%+v", cases)
	}
	if got := Text(t, cases[1].Fields[0]); got != `a "b` {
		t.Errorf("%q", got)
	}
}

func TestFiles(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want map[string]string
	}{
		"sections":         {"ip x\n== zone\na. A 192.0.2.1\nb. A 192.0.2.2\n== want\nw\n== message\nF: x\r\n\n== zone\nlast", map[string]string{"zone": "a. A 192.0.2.1\nb. A 192.0.2.2\n", "want": "w\n", "message": "F: x\r\n\n== zone\nlast"}},
		"an empty section": {"ip x\n== zone\n== want\n== message\n", map[string]string{"zone": "", "want": "", "message": ""}},
		"an empty line":    {"ip x\nwhy y\n\nF: x\n\nbody\n", map[string]string{"message": "F: x\n\nbody\n"}},
	} {
		cases := Files(t, write(t, "case.txt", c.text))
		if len(cases) != 1 || cases[0].Name != "case" || cases[0].Get("ip") != "x" || !reflect.DeepEqual(cases[0].Sections, c.want) {
			t.Errorf("%s: %+v", name, cases)
		}
	}
}

func TestSiblings(t *testing.T) {
	path := write(t, "one.eml", "F: x\r\n")
	if err := os.WriteFile(strings.TrimSuffix(path, "eml")+"want", []byte("pass\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := Siblings(t, path, "want")
	if len(cases) != 1 || cases[0].Name != "one" || cases[0].Sections["message"] != "F: x\r\n" || cases[0].Sections["want"] != "pass\n" {
		t.Errorf("%+v", cases)
	}
}

// fatal notes the first failure.
type fatal struct{ text string }

func (*fatal) Helper() {}
func (f *fatal) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
	panic(f)
}

func TestMistakesAreFatal(t *testing.T) {
	for want, do := range map[string]func(TB){
		"no file is":                   func(t TB) { Files(t, "/nonexistent/*.txt") },
		"/nonexistent/a":               func(t TB) { List(t, "/nonexistent/a") },
		"a.txt:1: \"ip\" is before":    func(t TB) { List(t, write(t.(*both).T, "a.txt", "  ip x\n")) },
		"f:3: \"\\q\": invalid syntax": func(t TB) { Text(t, Field{"k", `"\q"`, "f:3"}) },
	} {
		f := &fatal{}
		func() {
			defer func() { _ = recover() }()
			do(&both{t, f})
		}()
		if !strings.Contains(f.text, want) {
			t.Errorf("%q, want %q", f.text, want)
		}
	}
}

// both fails as fatal does, and makes files as a test.
type both struct {
	*testing.T
	fatal *fatal
}

func (b *both) Fatalf(format string, args ...any) { b.fatal.Fatalf(format, args...) }
