package maillog

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// lineAt is a record some seconds after start.
func lineAt(seconds float64, name string) string {
	at := start.Add(time.Duration(seconds * float64(time.Second)))
	return fmt.Sprintf("{\"ts\":%q,\"msg\":\"decision\",\"daemon\":\"policyd\",\"queue_id\":%q}\n", at.Format(time.RFC3339Nano), name)
}

func ids(t *testing.T, sources ...*Source) string {
	t.Helper()
	var all []string
	for e, err := range Merge(sources) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.QueueID)
	}
	return strings.Join(all, " ")
}

func source(text string) *Source { return NewSource("test", strings.NewReader(text), nil) }

func TestMerge(t *testing.T) {
	a := source(lineAt(0, "a") + "noise\n\n" + lineAt(3, "d") + lineAt(2.5, "c") + lineAt(10, "f"))
	b := source(lineAt(1, "b") + lineAt(5, "e"))
	if got := ids(t, a, source(""), b); got != "a b c d e f" {
		t.Errorf("got %s", got)
	}
	if a.Records != 4 || a.Others != 1 {
		t.Errorf("%d records, %d others", a.Records, a.Others)
	}
	if got := ids(t, source(lineAt(1, "a")+lineAt(1, "b")+lineAt(1, "c"))); got != "a b c" {
		t.Errorf("at the same time: %s", got)
	}
}

// What a source that fails had before, and what the others have, is not lost.
func TestMergeEndsWithAnError(t *testing.T) {
	broken := NewSource("broken", io.MultiReader(strings.NewReader(lineAt(0, "a")), errReader{}), nil)
	empty := NewSource("empty", errReader{}, nil)
	var got error
	var found []string
	for e, err := range Merge([]*Source{empty, broken, source(lineAt(1, "b") + lineAt(9, "c"))}) {
		if got = err; err == nil {
			found = append(found, e.QueueID)
		}
	}
	if !errors.Is(got, errBroken) || !strings.Contains(got.Error(), "broken: ") || !strings.Contains(got.Error(), "empty: ") {
		t.Errorf("got %v", got)
	}
	if strings.Join(found, " ") != "a b c" {
		t.Errorf("found %s", found)
	}
}

func TestCutShort(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, lineAt(0, "a"))
	if err := errors.Join(z.Flush(), z.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "log.1.gz")
	if err := os.WriteFile(path, b.Bytes()[:b.Len()-9], 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if e, err := s.Next(); err != nil || e.QueueID != "a" {
		t.Errorf("before the end: %v, %v", e, err)
	}
	if _, err := s.Next(); err == nil || !strings.Contains(err.Error(), path+": the compressed file is cut short") {
		t.Errorf("at the end: %v", err)
	}
}

// What does not grow cannot be followed.
func TestTailRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.1.gz")
	if err := os.WriteFile(path, []byte("\x1f\x8b\x08"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{path: path + " is compressed", filepath.Dir(path): " is a folder"} {
		if _, err := OpenTail(t.Context(), name, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var errBroken = errors.New("unreadable")

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errBroken }

func TestLongLines(t *testing.T) {
	long := strings.Repeat("x", 100<<10)
	for _, tt := range []struct {
		name, text, want string
		others           int
	}{
		{"of a record", lineAt(0, long) + lineAt(1, "b"), long + " b", 0},
		{"too long", strings.Repeat("y", maxLine) + lineAt(0, "a") + lineAt(1, "b"), "b", 1},
		{"far too long", strings.Repeat("y", 3*maxLine/2) + lineAt(0, "a") + lineAt(1, "b"), "b", 1},
		{"at the end", lineAt(0, "a") + strings.Repeat("y", 2*maxLine), "a", 1},
		{"only that", strings.Repeat("y", 2*maxLine), "", 1},
		{"without an end", strings.TrimSuffix(lineAt(0, "a"), "\n"), "a", 0},
	} {
		s := source(tt.text)
		if got := ids(t, s); got != tt.want || s.Others != tt.others {
			t.Errorf("%s: %.50s, %d octets, %d others", tt.name, got, len(got), s.Others)
		}
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	plain, zipped, empty, cut := filepath.Join(dir, "log"), filepath.Join(dir, "log.1.gz"), filepath.Join(dir, "empty"), filepath.Join(dir, "cut.gz")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, lineAt(0, "a"))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{plain: lineAt(1, "b"), zipped: b.String(), empty: "", cut: "\x1f\x8b"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var sources []*Source
	for _, name := range []string{plain, zipped, empty} {
		s, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		sources = append(sources, s)
	}
	if got := ids(t, sources...); got != "a b" {
		t.Errorf("got %s", got)
	}
	for _, name := range []string{cut, filepath.Join(dir, "none")} {
		if _, err := Open(name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A file is followed over rotation and truncation; nothing that was written before
// is lost.
func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write := func(name, text string, flag int) {
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|flag, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	write(path, lineAt(0, "old"), 0)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		tail, err := OpenTail(ctx, path, true)
		if err != nil {
			t.Fatal(err)
		}
		defer tail.Close()
		found := make(chan string)
		go func() {
			defer close(found)
			s := NewSource(path, tail, nil)
			for {
				e, err := s.Next()
				if err != nil {
					return
				}
				found <- e.QueueID
			}
		}()
		expect := func(want string) {
			t.Helper()
			if got := <-found; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		write(path, lineAt(1, "a"), os.O_APPEND)
		expect("a")
		write(path, lineAt(2, "b"), os.O_APPEND)
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		write(path, lineAt(3, "c"), 0)
		expect("b")
		expect("c")
		write(path, "", os.O_TRUNC)
		write(path, strings.Repeat("\n", 3), os.O_APPEND)
		time.Sleep(2 * lookInterval) // of the bubble: it has seen the short file
		write(path, lineAt(4, "d"), os.O_APPEND)
		expect("d")
		cut := lineAt(5, "cut")
		write(path, cut[:len(cut)/2], os.O_APPEND)
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		write(path, lineAt(6, "e"), 0)
		expect("e")
		cancel()
		if _, open := <-found; open {
			t.Error("something more was found")
		}
	})
}
