package postmap

import (
	"strings"
	"testing"
)

func TestInline(t *testing.T) {
	table, err := parseInline(`{a=1, a=2, { B = x y }, ,{"c d"=e} "f=g"=h, i={j} {k\ l=m} n=o=p JÜRGEN@Bücher.example=q}`)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"a": "2", "b": "x y", `"c d"`: "e", "c": "", `"f=g"`: "h", "i": "{j}", `k\ l`: "m", "n": "o=p", "jürgen@xn--bcher-kva.example": "q", "": "", "z": "",
	} {
		values, err := table.Lookup(t.Context(), key)
		if err != nil || strings.Join(values, "|") != want {
			t.Errorf("%q: %q, %v, want %q", key, values, err, want)
		}
	}
	if table.Close() != nil {
		t.Error("close")
	}
}

func TestBadInline(t *testing.T) {
	for text, want := range map[string]string{
		"":             `no "{"`,
		"a=b":          `no "{"`,
		"{a=b":         `missing "}"`,
		"{a=b}c":       "after the closing brace",
		"{}":           "empty table",
		"{ , }":        "empty table",
		"{a}":          `no "="`,
		"{a = b}":      `no "="`,
		"{=b}":         "no key",
		"{{}}":         "no key",
		"{a=}":         "no value",
		"{{a= }}":      "no value",
		"{{a=b}c=d}":   "after the closing brace",
		"{a=b}}":       "after the closing brace",
		"{a=\xff}":     "invalid UTF-8",
		"{a=b} {c=d}}": "after the closing brace",
	} {
		if table, err := parseInline(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v", text, table, err)
		}
	}
}

func TestStatic(t *testing.T) {
	for text, want := range map[string]string{"all": "all", "{two words}": "two words", "{ a }": "a", "a b": "a b"} {
		s, err := parseStatic(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if values, err := s.Lookup(t.Context(), "any"); err != nil || len(values) != 1 || values[0] != want || s.Close() != nil {
			t.Errorf("%q: %q, %v", text, values, err)
		}
	}
	for text, want := range map[string]string{
		"": "empty", "{}": "empty", "{a": "missing", "{a} b": "after the closing", "\xff": "UTF-8",
		strings.Repeat("a", MaxSpec+1): "longer than",
	} {
		if _, err := parseStatic(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func FuzzInline(f *testing.F) {
	for _, seed := range []string{"{a=b}", "{{a = b c}, d=e}", "{{{{", "{a\\=b}", `{"a b"=c}`, "{a={b}}", "{ }", "}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if table, err := parseInline(text); err == nil {
			for key, value := range table {
				if key == "" || value == "" {
					t.Fatalf("%q: %q", text, table)
				}
			}
		}
		if s, err := parseStatic(text); err == nil && s == "" {
			t.Fatalf("%q: empty", text)
		}
	})
}
