package postmap

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postmap/mapfile"
)

func parseRules(t testing.TB, kind patternKind, text string) *patternTable {
	t.Helper()
	table, err := parsePatternText(kind, "f", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// patternAnswer gives "result @line", or "".
func patternAnswer(t testing.TB, table *patternTable, key string) string {
	t.Helper()
	values, err := table.Lookup(t.Context(), key)
	if err != nil {
		return "error " + err.Error()
	}
	if len(values) == 0 {
		return ""
	}
	return values[0] + " @" + strings.TrimPrefix(table.Locate(key), "f:")
}

func TestPatternRules(t *testing.T) {
	const both = `# rules
/^USER@Example\.com$/ one
/^u([0-9]+)@(x)\.org$/ $1-${2}-$(1)$$
/^none@/	two words,
   continued
if /@y\.org$/
IF !/^a/
/^(.*)@/ y-$1
endif
/^a/ ya
ENDIF
/^cs@/i CS
|^alt@| alt
!! /^dd@/ double
! /@/ bare
/^opt(x)?@/ [$1]
/^slash\/@/ slash
`
	for _, kind := range []patternKind{posix, pcre} {
		table := parseRules(t, kind, both)
		for key, want := range map[string]string{
			"user@example.com":  "one @2",
			"USER@EXAMPLE.COM":  "one @2",
			"user@examplexcom":  "",
			"u12@x.org":         "12-x-12$ @3",
			"none@z":            "two words,   continued @4",
			"b@y.org":           "y-b @8",
			"a@y.org":           "ya @10",
			"cs@z":              "CS @12",
			"CS@z":              "",
			"alt@z":             "alt @13",
			"dd@z":              "double @14",
			"nodomain":          "bare @15",
			"opt@z":             "[] @16",
			"optx@z":            "[x] @16",
			"slash/@z":          "slash @17",
			"unlisted@z":        "",
			"x\ny@z":            "",
			"":                  "bare @15",
			"user@example.com ": "",
		} {
			if got := patternAnswer(t, table, key); got != want {
				t.Errorf("kind %d, %q: %q, want %q", kind, key, got, want)
			}
		}
	}
}

func TestDialects(t *testing.T) {
	for _, c := range []struct {
		kind       patternKind
		rule       string
		key        string
		wantResult string
	}{
		{posix, `/^long(a|ab)(c|bcd)?@/ $1`, "longabcd@x", "a @1"},
		{posix, `/^(a|ab)/ $1`, "abc", "ab @1"}, // leftmost longest
		{pcre, `/^(a|ab)/ $1`, "abc", "a @1"},   // leftmost first
		{posix, `/^p1/!/z$/ yes`, "p1x", "yes @1"},
		{posix, `/^p1/!/z$/ yes`, "p1z", ""},
		{posix, `/^p1/i!/Z$/i yes`, "p1z", "yes @1"},
		{posix, `/^[]x\]@/ yes`, `\@`, "yes @1"},
		{posix, `/^[]x\]@/ yes`, `]@`, "yes @1"},
		{posix, `/^[^]x]@/ yes`, `]@`, ""},
		{posix, `/^[[:digit:]_]+$/ yes`, `1_2`, "yes @1"},
		{posix, `/^[a[]$/ yes`, `[`, "yes @1"},
		{posix, `/^q{,2}w@/ yes`, "qqqw@", ""},
		{posix, `/^q{,2}w@/ yes`, "qqw@", "yes @1"},
		{posix, `/^\w+\s?\W\S$/ yes`, "a_1 -x", "yes @1"},
		{posix, `/^a+?$/ yes`, "", "yes @1"}, // (a+)?, not a lazy a+
		{posix, `/^m.n$/m yes`, "m\nn", ""},
		{posix, `/^m.n$/ yes`, "m\nn", "yes @1"},
		{posix, `/^n$/m yes`, "m\nn", "yes @1"},
		{pcre, `/^m.n$/ yes`, "m\nn", "yes @1"},
		{pcre, `/^m.n$/s yes`, "m\nn", ""},
		{pcre, `/^n$/m yes`, "m\nn", "yes @1"},
		{pcre, `/^n$/ yes`, "m\nn", ""},
		{pcre, `/n/A yes`, "mn", ""},
		{pcre, `/m|n/A yes`, "xn", ""},
		{pcre, `/(.*)@/U $1`, "a@b@", "a @1"},
		{pcre, `/^ a [ b] \ c # comment/x yes`, "a  c", "yes @1"},
		{pcre, `/^ [^]#a] [[:alpha:] ] z $/x yes`, "b z", "yes @1"},
		{pcre, `/^\d{2}\Q.\E(?:x)(?i:Y)$/iEX yes`, "12.xy", "yes @1"},
		{pcre, `/^(?<name>a)$/ $1`, "a", "a @1"},
		{pcre, `/^JÜRGEN@/ yes`, "jürgen@x", "yes @1"},
	} {
		if got := patternAnswer(t, parseRules(t, c.kind, c.rule), c.key); got != c.wantResult {
			t.Errorf("kind %d, %s, %q: %q, want %q", c.kind, c.rule, c.key, got, c.wantResult)
		}
	}
}

func TestBadRules(t *testing.T) {
	const either = posix + pcre + 1
	for _, c := range []struct {
		kind       patternKind
		text, want string
	}{
		{either, "/a/ b\nx", `f:2: neither a pattern, if nor endif: "x"; write: /pattern/flags result`},
		{either, "iffy", "f:1: neither"},
		{either, "/a/", "f:1: no result after the pattern"},
		{either, "/a", `f:1: no closing '/' after the pattern`},
		{either, `/a\`, "f:1: no closing"},
		{either, "!", "f:1: no pattern"},
		{either, "if", "f:1: no pattern"},
		{either, "if /a/ b\nendif", "f:1: text after the pattern of an if"},
		{either, "/a/ b\nif /a/\nif /b/\nendif", "f:2: if without endif"},
		{either, "endif", "f:1: endif without if"},
		{either, "if /a/\nendif x", "f:2: text after endif"},
		{either, strings.Repeat("if /a/\n", MaxNesting+1), "f:51: if nested too deeply"},
		{either, "/a/q b", "f:1: unknown flag 'q'"},
		{either, "/(/ b", "f:1: pattern not supported: missing closing )"},
		{either, "/(a)/ $2", "f:1: $2 in the result, but the pattern has fewer groups"},
		{either, "/(a)/ $0", "f:1: $0 in the result is no number"},
		{either, "/(a)/ $x", "f:1: $x in the result is no number"},
		{either, "/(a)/ $1x", "f:1: $1x in the result is no number"},
		{either, "/(a)/ ${+1}", "f:1: $+1 in the result is no number"},
		{either, "/(a)/ a$", "f:1: $ in the result is no number"},
		{either, "/(a)/ ${1", "f:1: ${ in the result is not closed"},
		{either, "/(a)/ $(1", "f:1: $( in the result is not closed"},
		{either, "!/(a)/ $1", "f:1: $1 in the result of a negated pattern"},
		{either, "/" + strings.Repeat("a", MaxPattern+1) + "/ b", "f:1: pattern is too long"},
		{either, " /a/ b", "f:1: begins with white space"},
		{either, "/a/ b\x00", "f:1: contains a NUL"},
		{either, "/a{2000}/ b", "f:1: pattern not supported: invalid repeat count"},
		{either, "/\xff/ b", "f:1: pattern not supported: invalid UTF-8"},
		{pcre, "/(?<n>a)(?<n>b)/ c", `f:1: two groups have the name "n"`},
		{posix, "/a/x b", "f:1: flag x asks for basic regular expressions"},
		{posix, "/a/!/b", "f:1: no closing"},
		{posix, `/(a)\1/ b`, `f:1: \1 is not POSIX`},
		{posix, `/\d/ b`, `f:1: \d is not POSIX; write a class such as [0-9]`},
		{posix, `/\<a/ b`, `f:1: \< is not supported`},
		{posix, `/(?i)a/ b`, `f:1: "(?" is not POSIX; use a pcre: table`},
		{posix, `/[a/ b`, `f:1: "[" is not closed`},
		{posix, `/[[:alpha]/ b`, `f:1: "[:" is not closed`},
		{posix, `/[[:nope:]]/ b`, `f:1: pattern not supported: invalid character class range`},
		{posix, `/[[=a=]]/ b`, `f:1: collating symbols`},
		{posix, `/^*a/ b`, `f:1: nothing that '*' could repeat is before it; write \* for the character`},
		{posix, `/a|{1}/ b`, `f:1: nothing that '{' could repeat`},
		{posix, `/({a})/ b`, `f:1: nothing that '{' could repeat`},
		{posix, `/$+/ b`, `f:1: nothing that '+' could repeat`},
		{posix, `/x{a}/ b`, `f:1: "{" begins no bound such as {2} or {1,3}; write \{ for a brace`},
		{posix, `/x{}/ b`, `f:1: "{" begins no bound`},
		{posix, `/x{1,2/ b`, `f:1: "{" begins no bound`},
		{pcre, `/(a)\1/ b`, "f:1: pattern not supported: invalid escape sequence: `\\1`; write it without back-references"},
		{pcre, `/(?=a)/ b`, "f:1: pattern not supported: invalid or unsupported Perl syntax"},
		{pcre, `/(?>a)/ b`, "f:1: pattern not supported"},
		{pcre, `/a++/ b`, "f:1: pattern not supported: invalid nested repetition"},
		{pcre, `/a/!/b/ c`, "f:1: unknown flag '!'"},
	} {
		for _, kind := range []patternKind{posix, pcre} {
			if c.kind != either && c.kind != kind {
				continue
			}
			_, err := parsePatternText(kind, "f", strings.NewReader(c.text))
			var problem *mapfile.Error
			if !errors.As(err, &problem) || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("kind %d, %.60q: %v, want %s", kind, c.text, err, c.want)
			}
		}
	}
}

func TestTooManyRules(t *testing.T) {
	text := strings.Repeat("/a/ b\n", MaxRules)
	parseRules(t, posix, text)
	if _, err := parsePatternText(posix, "f", strings.NewReader(text+"/a/ b\n")); err == nil || !strings.HasPrefix(err.Error(), "f:5001: too many rules") {
		t.Errorf("got %v", err)
	}
}

func TestUselessResults(t *testing.T) {
	table := parseRules(t, pcre, "/^(x)?@/ $1\n/^(.*)!/ "+strings.Repeat("$1", 100))
	if got := patternAnswer(t, table, "@y"); got != "error f:1: the result is empty; let the rule give a result of bounded length for every address it matches" {
		t.Errorf("empty: %s", got)
	}
	if got := patternAnswer(t, table, strings.Repeat("y", MaxResult/50)+"!"); !strings.HasPrefix(got, "error f:2: the result is too long") {
		t.Errorf("long: %.60s", got)
	}
}

func TestPatternOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if _, err := openPatternFile(posix, path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(path, []byte("/a/ b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	table, err := openPatternFile(pcre, path)
	if err != nil || table.Locate("a") != path+":1" || table.Close() != nil {
		t.Errorf("%v", err)
	}
}

func FuzzPatterns(f *testing.F) {
	for _, seed := range []string{"/a/ b", "!/a/i b", "if /a/\n/b(c)/ $1\nendif", "/a/!/b/ c", "/[]\\]/ x", "/a b/x $$", "|a\\|b| ${1}", "/[[:alpha:]]{,3}/m x", "/(/ b", "if !!", "\xff\xfe", "/[[", "/a/ $(", "/[^]/ b", "/\\/ x"} {
		f.Add(seed, "User+a@x.org")
	}
	f.Fuzz(func(t *testing.T, text, key string) {
		if len(text) > 2000 || len(key) > 200 {
			return // keeps one run short; the bounds have their own tests
		}
		for _, kind := range []patternKind{posix, pcre} {
			table, err := parsePatternText(kind, "f", strings.NewReader(text))
			if err != nil {
				var problem *mapfile.Error
				if !errors.As(err, &problem) || problem.Line < 1 {
					t.Fatalf("error without a place: %v", err)
				}
				continue
			}
			values, err := table.Lookup(t.Context(), key)
			if err == nil && len(values) > 0 && (values[0] == "" || len(values[0]) > MaxResult || table.Locate(key) == "") {
				t.Fatalf("result %q of %q", values, key)
			}
		}
	})
}

func BenchmarkPatternLookup(b *testing.B) {
	table := parseRules(b, pcre, "/^info@example\\.com$/ a\n/^([^@]+)@example\\.org$/ $1\n")
	b.ReportAllocs()
	for b.Loop() {
		if got, _ := table.Lookup(b.Context(), "jane.doe@example.org"); len(got) != 1 {
			b.Fatal(got)
		}
	}
}
