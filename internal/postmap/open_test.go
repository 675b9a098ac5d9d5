package postmap

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	write(t, path, text)
	return path
}

// write makes a file that is a minute old: postmap waits until a fresh one has
// cooled down.
func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	text, rules := file(t, "owners", "a@x.org one\n"), file(t, "rules", "/^a@/ two\n")
	for _, c := range []struct {
		spec    string
		want    string
		pattern bool
		files   []string
	}{
		{"hash:" + text, "one", false, []string{text}},
		{"btree:" + text, "one", false, []string{text}},
		{"lmdb:" + text, "one", false, []string{text}},
		{"cdb:" + text, "one", false, []string{text}},
		{"dbm:" + text, "one", false, []string{text}},
		{"texthash:" + text, "one", false, []string{text}},
		{"proxy:hash:" + text, "one", false, []string{text}},
		{"regexp:" + rules, "two", true, []string{rules}},
		{"pcre:" + rules, "two", true, []string{rules}},
		{"inline:{a@x.org=three}", "three", false, nil},
		{"static:four", "four", false, nil},
		{"static:{four five}", "four five", false, nil},
		{"unionmap:{hash:" + text + ", proxy:pcre:" + rules + "}", "one,two", false, []string{text, rules}},
		{"unionmap:{pcre:" + rules + " static:{six seven} unionmap:{static:eight}}", "two,six seven,eight", true, []string{rules}},
	} {
		table, err := Open(c.spec, Options{})
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
			continue
		}
		values, err := table.Source.Lookup(t.Context(), "a@x.org")
		if err != nil || strings.Join(values, ",") != c.want || table.Spec != c.spec || table.Pattern != c.pattern || !slices.Equal(table.Files, c.files) {
			t.Errorf("%s: %q %v %+v", c.spec, values, err, table)
		}
		if err := Close(table); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	broken, rules := file(t, "owners", "a b\nbroken\n"), file(t, "rules", "/(?=a)/ b\n")
	for spec, want := range map[string]string{
		"/etc/postfix/owners":            `table "/etc/postfix/owners" has no type and name; write it as in Postfix`,
		"hash:":                          "has no type and name",
		"ldap2:/x":                       `map type "ldap2" is not built in; known types: btree cdb dbm hash inline ldap lmdb mysql pcre pgsql regexp socketmap sqlite static texthash unionmap`,
		"proxy:proxy:hash:/x":            `map type "proxy" is not built in`,
		"hash:/nonexistent/owners":       "table hash:/nonexistent/owners: /nonexistent/owners: no such file or directory",
		"hash:" + broken:                 broken + ":2: no value after key \"broken\"; write: key",
		"pcre:" + rules:                  rules + ":1: pattern not supported",
		"regexp:" + rules:                rules + `:1: "(?" is not POSIX`,
		"inline:{a}":                     `entry "a" has no "=" after the key; write inline:{key=value, {key = several words}}`,
		"static:{a":                      `missing "}"; write static:value`,
		"unionmap:{":                     `missing "}"; write unionmap:{type:name, type:name}`,
		"unionmap:{hash}":                `table "hash" has no type and name`,
		"unionmap:{hash:" + broken + "}": broken + ":2: no value",
		strings.Repeat("unionmap:{", maxDepth+1) + "static:a" + strings.Repeat("}", maxDepth+1): "more than 8 unions",
	} {
		_, err := Open(spec, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", spec, err, want)
		}
	}
}

func TestWarningsPassThrough(t *testing.T) {
	text := file(t, "owners", "a b\nA c\n")
	var warnings []string
	warn := func(w string) { warnings = append(warnings, w) }
	if _, err := Open("unionmap:{hash:"+text+"}", Options{Warn: warn}); err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], text+":2: duplicate") {
		t.Errorf("%q %v", warnings, err)
	}
}

func FuzzOpen(f *testing.F) {
	for _, seed := range []string{"static:a", "unionmap:{static:{a b},inline:{a=b}}", "unionmap:{unionmap:{inline:{{a=b}}}}", "proxy:static:a", ":", "unionmap:{{}}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		for _, fileType := range []string{"hash", "btree", "lmdb", "cdb", "dbm", "texthash", "regexp", "pcre"} {
			if strings.Contains(spec, fileType+":") {
				return // would read the machine's own files
			}
		}
		table, err := Open(spec, Options{})
		if err != nil {
			return
		}
		if _, err := table.Source.Lookup(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	})
}
