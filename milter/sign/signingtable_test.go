package sign

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/author"
)

func tables(t testing.TB, keyTable, signingTable, prefix string) (*Keys, error) {
	t.Helper()
	ed := pkcs8(t, testEd25519())
	dir := tree(t, map[string][]byte{"a": ed, "b": ed, "c": ed, "signing": []byte(signingTable)})
	path := filepath.Join(tree(t, map[string][]byte{
		"keys": []byte(strings.ReplaceAll(keyTable, "DIR", dir)),
	}), "keys")
	return LoadKeys(KeySource{KeyTable: path, SigningTable: prefix + filepath.Join(dir, "signing"), Group: -1})
}

const someKeys = "# the keys\na example.com:a:DIR/a\nb\tsub.example.com:b:DIR/b\n\nc example.org:c:DIR/c # old\na2 example.com:a2:DIR/a\n"

func TestSigningTable(t *testing.T) {
	const (
		globs = "user@example.com a2\n*@example.com a\n*@*.example.com a,a2\n*@example.org c\n"
		exact = "boss@example.com a2\nexample.com a\n.example.com a\nu@.example.org c\n"
		any   = "* a\n"
	)
	tests := []struct{ table, prefix, local, domain, want string }{
		{globs, "refile:", "user", "example.com", "a2/example.com"},
		{globs, "refile:", "USER", "example.com", "a2/example.com"},
		{globs, "refile:", "other", "example.com", "a/example.com"},
		{globs, "refile:", "user", "x.y.example.com", "a/example.com a2/example.com"},
		{globs, "refile:", "user", "notexample.com", ""},
		{globs, "refile:", "user", "example.org", "c/example.org"},
		{globs, "refile:", "user", "sub.example.org", ""},
		{exact, "", "boss", "example.com", "a2/example.com"},
		{exact, "", "x", "example.com", "a/example.com"},
		{exact, "", "x", "deep.sub.example.com", "a/example.com"},
		{exact, "", "u", "sub.example.org", "c/example.org"},
		{exact, "", "v", "sub.example.org", ""},
		{exact, "file:", "u", "example.org", ""},
		{any, "refile:", "u", "example.com", "a/example.com"},
		{any, "", "u", "sub.example.com", "a/example.com"},
		{any, "", "u", "example.net", ""}, // would not align
		{"example.com a\nexample.com a2\n", "", "u", "example.com", "a/example.com a2/example.com"},
	}
	for _, tt := range tests {
		keys, err := tables(t, someKeys, tt.table, tt.prefix)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(keys.choose(author.Mailbox{Local: tt.local, Domain: tt.domain}, false)); got != tt.want {
			t.Errorf("%s@%s in %q: got %q, want %q", tt.local, tt.domain, tt.table, got, tt.want)
		}
	}
}

func TestTableErrors(t *testing.T) {
	tests := []struct{ name, keys, signing, prefix, want string }{
		{"name twice", someKeys + "a example.com:z:DIR/a\n", "", "", "keys:7: the name \"a\" occurs twice"},
		{"parts", "a example.com:DIR/a\n", "", "", "keys:1: want domain:selector:/path"},
		{"no domain", "a exa mple:s:DIR/a\n", "", "", "keys:1: the domain is not one"},
		{"key within the table", "a example.com:s:MIIEsecret\n", "", "", "not the absolute path"},
		{"missing file", "a example.com:s:DIR/zz\n", "", "", "no such file"},
		{"one word", "a\n", "", "", "keys:1: want two words"},
		{"long line", "a " + strings.Repeat("x", maxTableLine), "", "", "keys:1: bufio.Scanner: token too long"},
		{"unknown key", someKeys, "example.com zz\n", "", "signing:1: no key is named \"zz\""},
		{"not aligned", someKeys, "example.com c\n", "", "does not align"},
		{"two domains", someKeys, "sub.example.com a\nsub.example.com b\n", "", "signing:2: ambiguous"},
		{"bare domain as glob", someKeys, "example.com a\n", "refile:", "whole addresses"},
		{"glob without refile", someKeys, "*@*.example.com a\n", "", "only *@domain"},
		{"glob in the local part without refile", someKeys, "ad*@example.com a\n", "", "only *@domain"},
		{"selector", "a %:no selector:DIR/a\n", "", "", "is not a selector"},
		{"other tables", someKeys, "", "lua:", "lua: tables are not read; write its entries into a file"},
		{"empty name", someKeys, "", "refile:refile", "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tables(t, tt.keys, tt.signing, tt.prefix)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v, want one with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error %q shows a key", err)
			}
		})
	}
	if _, err := LoadKeys(KeySource{KeyTable: "x"}); err == nil || !strings.Contains(err.Error(), "together") {
		t.Errorf("one table alone: %v", err)
	}
}

// The same key may be in the folder and in a table, one selector with two keys
// may not.
func TestTableAndFolder(t *testing.T) {
	ed := pkcs8(t, testEd25519())
	dir := tree(t, map[string][]byte{"example.com/a.private": ed, "example.com/b.private": ed, "other": ed})
	conf := tree(t, map[string][]byte{
		"keys":    []byte("k example.com:a:" + dir + "/example.com/a.private\n"),
		"clash":   []byte("k example.com:a:" + dir + "/other\n"),
		"signing": []byte("example.com k\n"),
	})
	src := KeySource{Dir: dir, KeyTable: conf + "/keys", SigningTable: conf + "/signing", Group: -1}
	if got := names(load(t, src).choose(author.Mailbox{Local: "u", Domain: "example.com"}, false)); got != "a/example.com b/example.com" {
		t.Errorf("keys %q", got)
	}
	src.KeyTable = conf + "/clash"
	if _, err := LoadKeys(src); err == nil || !strings.Contains(err.Error(), "has its key in") {
		t.Errorf("two keys at one selector: %v", err)
	}
}

// A key that no line of the signing table names does not sign, so that its record may be
// missing.
func TestIdleKeys(t *testing.T) {
	for _, tt := range []struct{ keys, signing, want string }{
		{someKeys, "example.com a\n", "a/example.com"},
		{someKeys, "example.com a2\nsub.example.com b,a\n", "a/example.com a2/example.com b/sub.example.com"},
		{someKeys, "", ""},
		{someKeys, "example.org zz\nexample.org c:u@example.org\n", "c/example.org"},
		{"example.com example.com:a:DIR/a\nother/1 example.org:b:DIR/b\n", "example.com %\n", "a/example.com"},
		{"old example.com:a:DIR/a\nnew example.com:a:DIR/a\n", "example.com new\n", "a/example.com"},
		{"any %:s:DIR/a\nold %:t:DIR/a\n", "example.com any\n", "s/example.com"},
	} {
		keys, _ := tables(t, tt.keys, tt.signing, "")
		if got := names(keys.Signing()); got != tt.want {
			t.Errorf("of %q, %q signs, want %q", tt.signing, got, tt.want)
		}
		rest := keys.Without(func(key *Key) bool { return key.Selector == "a" })
		if got, want := len(rest.Signing()), len(strings.Fields(strings.ReplaceAll(" "+tt.want, " a/example.com", ""))); got != want {
			t.Errorf("of %q, %d sign without a, want %d", tt.signing, got, want)
		}
	}
	// One that is in the folder too signs.
	ed := pkcs8(t, testEd25519())
	dir := tree(t, map[string][]byte{"example.com/a.private": ed})
	conf := tree(t, map[string][]byte{"keys": []byte("k example.com:a:" + dir + "/example.com/a.private\n"), "signing": nil})
	src := KeySource{Dir: dir, KeyTable: conf + "/keys", SigningTable: conf + "/signing", Group: -1}
	if got := names(load(t, src).Signing()); got != "a/example.com" {
		t.Errorf("of the folder: %q signs", got)
	}
}

// Lines that never decide are reported, and do no harm.
func TestShadowedLines(t *testing.T) {
	for _, tt := range []struct{ table, local, domain, want string }{
		{"*@example.com a\nuser@example.com a2\n", "user", "example.com", "a/example.com"},
		{"* a\n*@example.com a2\n", "user", "example.com", "a/example.com"},
		{"*@*.example.com a\n*@x.example.com a2\n", "user", "x.example.com", "a/example.com"},
	} {
		keys, err := tables(t, someKeys, tt.table, "refile:")
		if err != nil {
			t.Fatal(err)
		}
		if w := strings.Join(keys.Warnings(), "|"); !strings.Contains(w, "signing:2: ambiguous: line 1") {
			t.Errorf("%q: warnings %q", tt.table, w)
		}
		if got := names(keys.choose(author.Mailbox{Local: tt.local, Domain: tt.domain}, false)); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.table, got, tt.want)
		}
	}
}

// A wrong line affects only its own mail.
func TestWrongLines(t *testing.T) {
	keys, err := tables(t, someKeys+"bad example.com\nlost example.com:l:DIR/none\n"+"x "+strings.Repeat("x", 2*maxTableLine)+"\nlast example.com:z:DIR/a\n",
		"example.com bad\nexample.com lost\nexample.com a,zz\nexample.com a2,last\nsub.example.com\nexample.org c\n*x@y z\n", "")
	if err == nil || keys == nil {
		t.Fatalf("%v, %v", keys, err)
	}
	if keys.Problems() != 6 {
		t.Errorf("%d problems: %v", keys.Problems(), err)
	}
	for domain, want := range map[string]string{"example.com": "a/example.com a2/example.com z/example.com", "example.org": "c/example.org", "sub.example.com": ""} {
		if got := names(keys.choose(author.Mailbox{Local: "u", Domain: domain}, false)); got != want {
			t.Errorf("%s: %q, want %q", domain, got, want)
		}
	}
}

func FuzzTables(f *testing.F) {
	f.Add("a b\n# c\nd\te\r\n", true)
	f.Add("*@*.example.com x,y\n@ z\n", true)
	f.Add(".example.com k\nu@.example.com k\n@@ k\n*@ k\n", false)
	f.Fuzz(func(t *testing.T, text string, wildcards bool) {
		lines, _ := parseTable("table", strings.NewReader(text))
		for _, line := range lines {
			pattern, glob, err := parsePattern(line.key, wildcards)
			if glob != "" {
				matchGlob(glob, line.value)
			}
			if err != nil || glob != "" {
				continue
			}
			if _, domain, ok := strings.Cut(pattern, "@"); !ok || domain == "" {
				t.Fatalf("%q gives the pattern %q", line.key, pattern)
			}
		}
	})
}
