package postmap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postmap/mapfile"
)

func getText(t testing.TB, table *textTable, key string) string {
	t.Helper()
	values, err := table.Lookup(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(values, "|")
}

func TestTextParse(t *testing.T) {
	table, err := parseText("f", strings.NewReader(strings.Join([]string{
		"# owners",
		"User@Example.COM  one,  two \t",
		"key@x v1",
		"\tv2",
		`"a b"@x.org quoted`,
		`a\ b@x.org escaped`,
		"jürgen@Bücher.example j",
		"Straße@x.org s",
		"@x.org. all",
		"user bare",
		"crlf@x v\r",
		"vt@x\vv",
	}, "\n")), nil)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"user@example.com":             "one,  two|f:2",
		"key@x":                        "v1\tv2|f:3",
		`"a b"@x.org`:                  "quoted|f:5",
		`a\ b@x.org`:                   "escaped|f:6",
		"jürgen@xn--bcher-kva.example": "j|f:7",
		"strasse@x.org":                "s|f:8",
		"@x.org":                       "all|f:9",
		"user":                         "bare|f:10",
		"crlf@x":                       "v|f:11",
		"vt@x":                         "v|f:12",
		"none@x":                       "|",
		"":                             "|",
		"one,":                         "|",
	} {
		if got := getText(t, table, key) + "|" + table.Locate(key); got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
	}
	if table.Len() != 10 || table.Close() != nil {
		t.Errorf("%d entries", table.Len())
	}
}

func TestTextEmpty(t *testing.T) {
	table, err := parseText("f", strings.NewReader("# nothing\n"), nil)
	if err != nil || table.Len() != 0 || getText(t, table, "a") != "" || table.Locate("a") != "" {
		t.Errorf("%v", err)
	}
}

func TestTextBadLines(t *testing.T) {
	for text, want := range map[string]string{
		"a b\nlonely\n":                        `f:2: no value after key "lonely"; write: key, white space, value`,
		"\"a b@x c\n":                          `f:1: unbalanced '"' in the key; close the quote`,
		"a \xff\n":                             "f:1: invalid UTF-8; save the file as UTF-8",
		" a b\n":                               "f:1: begins with white space",
		"a b\x00\n":                            "f:1: contains a NUL",
		strings.Repeat("k", MaxKey+1) + " v\n": "f:1: key is too long",
		`a\`:                                   "f:1: no value",
	} {
		_, err := parseText("f", strings.NewReader(text), nil)
		var problem *mapfile.Error
		if !errors.As(err, &problem) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.20q: %v, want %s", text, err, want)
		}
	}
}

func TestTextWarnings(t *testing.T) {
	var warnings []string
	text := "dup@x first\nDUP@x second\nalias: v\n" + strings.Repeat("dup@x more\n", 2*maxWarnings)
	table, err := parseText("f", strings.NewReader(text), func(w string) { warnings = append(warnings, w) })
	if err != nil {
		t.Fatal(err)
	}
	if getText(t, table, "dup@x") != "first" || getText(t, table, "alias:") != "v" {
		t.Error("the first entry does not count")
	}
	if len(warnings) != maxWarnings+1 ||
		warnings[0] != `f:2: duplicate entry "dup@x"; the one in line 1 counts, as in Postfix` ||
		warnings[1] != `f:3: key "alias:" ends with a colon; is this an aliases(5) file?` ||
		warnings[maxWarnings] != "f: 12 more warnings of this kind" {
		t.Errorf("%d warnings: %q", len(warnings), warnings)
	}
}

// TestGrowth goes through every size of the index.
func TestTextGrowth(t *testing.T) {
	var text strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&text, "user%d@x.org login%d\n", i, i)
	}
	table, err := parseText("f", strings.NewReader(text.String()), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5000 {
		if got := getText(t, table, fmt.Sprintf("user%d@x.org", i)); got != fmt.Sprintf("login%d", i) {
			t.Fatalf("user%d: %q", i, got)
		}
	}
}

func writeAt(t testing.TB, path, text string, at time.Time) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestTextCompiledFile(t *testing.T) {
	edited := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		mapType, suffix string
		later           time.Duration
		want            string
	}{
		{"hash", ".db", 2 * time.Hour, "is newer than its text"},
		{"btree", ".db", 2 * time.Minute, "is newer than its text"},
		{"lmdb", ".lmdb", 2 * time.Hour, "run: postmap lmdb:"},
		{"cdb", ".cdb", 2 * time.Hour, "run: postmap cdb:"},
		{"dbm", ".pag", 2 * time.Hour, "run: postmap dbm:"},
		{"hash", ".db", -time.Second, "is older than its text"},
		{"hash", ".db", 0, ""},
		{"hash", ".db", compileGrace, ""},
		{"hash", ".cdb", 2 * time.Hour, ""},
		{"texthash", ".db", 2 * time.Hour, ""},
	} {
		path := filepath.Join(t.TempDir(), "owners")
		writeAt(t, path, "a b\n", edited)
		writeAt(t, path+c.suffix, "", edited.Add(c.later))
		warning := ""
		if _, err := openTextFile(path, textOptions{Type: c.mapType, Warn: func(w string) { warning += w }}); err != nil {
			t.Fatal(err)
		}
		if (c.want == "") != (warning == "") || !strings.Contains(warning, c.want) {
			t.Errorf("%s, compiled %v later: %q", c.mapType, c.later, warning)
		}
		if _, err := openTextFile(path, textOptions{Type: c.mapType}); err != nil {
			t.Errorf("without Warn: %v", err)
		}
	}
}

func TestTextMissingText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "owners")
	if _, err := openTextFile(path, textOptions{Type: "hash"}); err == nil || strings.Contains(err.Error(), "compiled") {
		t.Errorf("nothing there: %v", err)
	}
	writeAt(t, path+".db", "", time.Now())
	_, err := openTextFile(path, textOptions{Type: "hash"})
	if err == nil || !errors.Is(err, os.ErrNotExist) ||
		!strings.Contains(err.Error(), "only the compiled "+path+".db is there; write the text back with: postmap -s hash:"+path+" > "+path) {
		t.Errorf("only the compiled file there: %v", err)
	}
	writeAt(t, path, "broken\n", time.Now())
	if _, err := openTextFile(path, textOptions{Type: "hash"}); err == nil || !strings.HasPrefix(err.Error(), path+":1: no value") {
		t.Errorf("broken: %v", err)
	}
	writeAt(t, path, " broken\n", time.Now())
	if _, err := openTextFile(path, textOptions{Type: "hash"}); err == nil || !strings.HasPrefix(err.Error(), path+":1: begins") {
		t.Errorf("broken: %v", err)
	}
}

// FuzzParse looks for panics, and holds that whatever was accepted is found again.
func FuzzText(f *testing.F) {
	for _, seed := range []string{"", "a b", "a b\n c\n#x\n d", `"a b"@x c`, "a\\", "\"", "é@é é", "a b\nA c", "a\x00 b", "\xff a", " a b", "a: b", "@. x", "a@[::1 b", "a\u2028b c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		table, err := parseText("f", strings.NewReader(text), func(string) {})
		if err != nil {
			var problem *mapfile.Error
			if !errors.As(err, &problem) || problem.Line < 1 {
				t.Fatalf("error without a place: %v", err)
			}
			return
		}
		for i := range table.Len() {
			key := table.key(i)
			if key == "" || getText(t, table, key) != table.value(i) || table.value(i) == "" {
				t.Fatalf("entry %d: key %q value %q", i, key, table.value(i))
			}
		}
		if first, rest, ok := strings.Cut(text, " "); ok && rest != "" && table.Len() == 1 && !strings.ContainsAny(first, "\"\\\t\n\v\f\r") && first != "" && first[0] != '#' {
			if getText(t, table, mailaddr.FoldKey(first)) == "" {
				t.Fatalf("key %q is lost", first)
			}
		}
	})
}

// manyOwners writes a table of 100,000 senders.
func manyOwners(b *testing.B) string {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "user%06d@mail.example.com login%06d@mail.example.com\n", i, i)
	}
	path := filepath.Join(b.TempDir(), "owners")
	writeAt(b, path, text.String(), time.Now())
	return path
}

func BenchmarkTextOpen100k(b *testing.B) {
	path := manyOwners(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := openTextFile(path, textOptions{Type: "hash"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTextLookup100k(b *testing.B) {
	table, err := openTextFile(manyOwners(b), textOptions{Type: "hash"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if values, _ := table.Lookup(b.Context(), "user077777@mail.example.com"); len(values) != 1 {
			b.Fatal(values)
		}
	}
}
