package mapfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// scan gives the logical lines as "number:text", and the error that ended them.
func scan(text string) (lines []string, err error) {
	s := NewScanner("f", strings.NewReader(text))
	for {
		line, err := s.Next()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		lines = append(lines, fmt.Sprintf("%d:%s", line.Number, line.Text))
	}
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", readBuffer+10)
	for _, c := range []struct {
		text, want string
	}{
		{"", ""},
		{"\n", ""},
		{"\n \n\t\n", ""},
		{"a b", "1:a b"},
		{"a b\nc d\n", "1:a b|2:c d"},
		{"#x\na b", "2:a b"},
		{" #x\na b", "2:a b"},
		{"a\n b\n", "1:a b"},
		{"a\n#x\n b\nc", "1:a b|4:c"},
		{"a\n #x\n b", "1:a b"},
		{"a\n\n b", "1:a b"},
		{"a\n \n b", "1:a b"},
		{"a\n ", "1:a"},
		{"a\r\n b\r\n", "1:a\r b\r"},
		{"a\n#x", "1:a"},
		{"#\x00\na", "2:a"},
		{long + "\n" + long, "1:" + long + "|2:" + long},
	} {
		got, err := scan(c.text)
		if err != nil || strings.Join(got, "|") != c.want {
			t.Errorf("%.40q: %.80q, %v", c.text, got, err)
		}
	}
}

func TestBadLines(t *testing.T) {
	for text, want := range map[string]string{
		" a b\n":                                "f:1: begins with white space but continues no line before it; remove the white space",
		"\n#x\n\ta b\n":                         "f:3: begins with white space",
		"a\nb\x00c\n":                           "f:2: contains a NUL",
		"a\n" + strings.Repeat("y", MaxLine):    "",
		"a\n" + strings.Repeat("y", MaxLine+1):  "f:2: line or file is too long",
		"a" + strings.Repeat("\n b", MaxLine/2): "f:",
	} {
		_, err := scan(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%.20q: %v, want %s", text, err, want)
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, syscall.EIO }

func TestReadError(t *testing.T) {
	_, err := NewScanner("f", io.MultiReader(strings.NewReader("a b\n "), failing{})).Next()
	if !errors.Is(err, syscall.EIO) || !strings.HasPrefix(err.Error(), "f:2: read: ") {
		t.Errorf("got %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	fifo, big := filepath.Join(dir, "fifo"), filepath.Join(dir, "big")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, MaxFileSize+1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"):   "none: no such file or directory",
		filepath.Join(dir, "$x"):     "$x: no such file or directory; write the path out",
		fifo:                         "fifo: is no regular file; name the text file",
		dir:                          ": is no regular file",
		big:                          "big: is larger than 64 MiB; split the table",
		filepath.Join(fifo, "under"): "under: not a directory",
	} {
		_, err := Open(path)
		var problem *Error
		if !errors.As(err, &problem) || !strings.Contains(err.Error(), want) || problem.Line != 0 {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := openError("f", fs.ErrPermission); !strings.Contains(err.Error(), "group postfix") || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("permission: %v", err)
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("a b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // every call begins at the beginning
		lines, err := f.Lines()
		if err != nil {
			t.Fatal(err)
		}
		if line, err := lines.Next(); err != nil || string(line.Text) != "a b" || line.Number != 1 {
			t.Errorf("%q %v", line.Text, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Lines(); err == nil || !strings.HasPrefix(err.Error(), path) {
		t.Errorf("lines of a closed file: %v", err)
	}
}

func TestWhere(t *testing.T) {
	if Where("f", 0) != "f" || Where("f", 7) != "f:7" {
		t.Error(Where("f", 0), Where("f", 7))
	}
}
