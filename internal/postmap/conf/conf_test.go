package conf

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func parseText(t testing.TB, text string) (*Conf, *[]string, error) {
	t.Helper()
	heard := new([]string)
	c, err := Parse("t.cf", strings.NewReader(text), func(w string) { *heard = append(*heard, w) })
	return c, heard, err
}

func TestParse(t *testing.T) {
	c, heard, err := parseText(t, "# comment\n\na = 1\nb=x y\n  # not this\n\tz = 2\n  c   =\nyes = YES\nno = no\na = 7\nlist = a, b\tc,,\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Int("a", 0, 0, 10); got != 7 {
		t.Errorf("a is %d", got)
	}
	if got := c.String("b", ""); got != "x y\tz = 2  c   =" {
		t.Errorf("b is %q", got)
	}
	if !c.Bool("yes", false) || c.Bool("no", true) || !c.Bool("missing", true) {
		t.Error("bool")
	}
	if got := strings.Join(c.List("list", ""), "|"); got != "a|b|c" {
		t.Errorf("list is %q", got)
	}
	if c.String("missing", "m") != "m" || c.Int("missing", 3, 0, 9) != 3 || c.Where("missing") != "t.cf" || c.Where("b") != "t.cf:4" {
		t.Error("missing")
	}
	if err := c.Finish(); err != nil || len(*heard) != 1 || !strings.Contains((*heard)[0], "t.cf:10: a overrides the one in line 3") {
		t.Errorf("%v, %q", err, *heard)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a\n":                                    "t.cf:1: no parameter",
		"a = 1\n= b\n":                           "t.cf:2: no parameter",
		"a b = 1\n":                              "no parameter",
		" a = 1\n":                               "continues no line",
		"a = \xff\n":                             "invalid UTF-8",
		"a = \x00\n":                             "NUL",
		"a = " + strings.Repeat("x", MaxValue+1): "too long",
	} {
		if _, _, err := parseText(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{"n = x": "t.cf:1: n: \"x\" is not allowed; write a number from 1 to 5", "n = 6": "n", "b = true": "write yes or no", "r = on": "r: is not supported; fix"} {
		c, _, err := parseText(t, text+"\n")
		if err != nil {
			t.Fatal(err)
		}
		c.Int("n", 0, 1, 5)
		c.Bool("b", false)
		c.Refuse("fix", []string{"no"}, "r")
		if err := c.Finish(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := Open("named", nil); err == nil || !strings.Contains(err.Error(), "main.cf") {
		t.Errorf("a name that is no path: %v", err)
	}
}

func TestExpander(t *testing.T) {
	for _, c := range []struct{ query, result, key, value, want string }{
		{"%s", "%s", "a@x.org", "v", "a@x.org -> v"},
		{"%u|%d|%U|%D|%S|%%", "%s", "a@b@x.org", "v", "a@b|x.org|a@b|x.org|a@b@x.org|% -> v"},
		{"%u", "%s", "bare", "v", "bare -> v"},
		{"%1.%2.%3", "%s", "a@x.y.org", "v", "org.y.x -> v"},
		{"%3", "%s", "a@x.org", "v", "suppressed"},
		{"%2", "%s", "a@.org", "v", "suppressed"},
		{"%1", "%s", "a@org.", "v", "suppressed"},
		{"%d", "%s", "bare", "v", "suppressed"},
		{"%d", "%s", "a@", "v", "suppressed"},
		{"%u", "%s", "@x.org", "v", "suppressed"},
		{"%s", "%s", "@x.org", "v", "@x.org -> v"},
		{"%s", "%U", "@x.org", "v", "suppressed"},
		{"%s", "%D", "bare", "v", "suppressed"},
		{"%s", "%s", "", "v", "suppressed"},
		{"%s", "%u at %d", "a@x.org", "v@y.org", "a@x.org -> v at y.org"},
		{"%s", "%u", "a@x.org", "v", "a@x.org -> v"},
		{"%s", "%d", "a@x.org", "v", "skipped"},
		{"%s", "%u", "a@x.org", "@y.org", "skipped"},
		{"%s", "%s", "a@x.org", "", "skipped"},
		{"%s", "<%S %U %D %1 %%>", "a@x.org", "v", "a@x.org -> <a@x.org a x.org org %>"},
	} {
		var e Expander
		query, err := e.Query(c.query)
		if err != nil {
			t.Fatal(err)
		}
		result, err := e.Result(c.result)
		if err != nil {
			t.Fatal(err)
		}
		got := "suppressed"
		if k, ok := e.Key(c.key); ok {
			got = "skipped"
			if value, ok := e.Format(result, k, c.value); ok {
				got = k.Expand(query, nil) + " -> " + value
			}
		}
		if got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
	var e Expander
	for _, bad := range []string{"%", "%x", "%0", "a%"} {
		if _, err := e.Query(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

type domainTable struct {
	err    error
	closed *int
}

func (d domainTable) Lookup(_ context.Context, key string) ([]string, error) {
	if key == "listed.example" {
		return []string{"yes"}, nil
	}
	return nil, d.err
}

func (d domainTable) Close() error { *d.closed++; return nil }

func TestDomains(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "list")
	if err := os.WriteFile(list, []byte("# domains\nfile.example second.example\n!not.example\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	closed := 0
	table := domainTable{closed: &closed}
	open := func(spec string) (Table, []string, error) {
		if spec != "hash:/x" {
			return nil, nil, errors.New("no such table")
		}
		return table, []string{"/x"}, nil
	}
	c, _, err := parseText(t, "domain = One.example, !two.example "+list+"\n  hash:/x bücher.example [192.0.2.1]\n")
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Domains(open)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{
		"a@one.example": true, "a@ONE.example": true, "a@two.example": false, "a@file.example": true, "a@second.example": true, "a@not.example": false,
		"a@listed.example": true, "a@other.example": false, "@one.example": false, "one.example": false, "a@": false, "a@xn--bcher-kva.example": true, "a@sub.one.example": false,
		"a@[192.0.2.1]": true,
	} {
		if got, err := d.Allows(t.Context(), key); got != want || err != nil {
			t.Errorf("%s: %v, %v", key, got, err)
		}
	}
	if got := strings.Join(d.Files(), " "); got != list+" /x" {
		t.Errorf("files %s", got)
	}
	if err := d.Close(); err != nil || closed != 1 {
		t.Errorf("%v, closed %d times", err, closed)
	}
	table.err = errors.New("down")
	c, _, _ = parseText(t, "domain = hash:/x\n")
	d, err = c.Domains(open)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Allows(t.Context(), "a@other.example"); !errors.Is(err, table.err) {
		t.Errorf("a list that fails: %v", err)
	}
	for _, bad := range []string{"hash:/y", "hash:/x hash:/y", "/nowhere/list"} {
		c, _, _ := parseText(t, "domain = "+bad+"\n")
		if _, err := c.Domains(open); err == nil || !strings.Contains(err.Error(), "t.cf:1: domain") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	var none *Domains
	if ok, err := none.Allows(t.Context(), "x"); !ok || err != nil || none.Close() != nil || none.Files() != nil {
		t.Error("no list allows nothing")
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"a = b\n", "query = SELECT\n  '%s'\n#\n x", "a", "=", "a==b\n a = b", "\xff=1", "a = \r\n", " \n", "domain = !!a, /b c:d"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, _, err := parseText(t, text)
		if err != nil {
			return
		}
		var e Expander
		for name := range c.params {
			template, err := e.Result(c.String(name, ""))
			if err != nil {
				continue
			}
			if k, ok := e.Key("user@sub.domain.example"); ok {
				e.Format(template, k, "value@example")
				k.Expand(Template{{Verb: 's'}}, strings.ToUpper)
			}
		}
	})
}

// A password in a file that everybody can read is refused; without a password
// the file may be open.
func TestSecretInOpenFile(t *testing.T) {
	for _, tt := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"password = secret\n", 0o644, "chmod o-rwx"},
		{"password = secret\n", 0o640, ""},
		{"password =\n", 0o644, ""},
		{"user = postfix\n", 0o644, ""},
	} {
		path := filepath.Join(t.TempDir(), "table.cf")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		c, err := Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Secret("password")
		if err := c.Finish(); (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%q with mode %o: %v", tt.text, tt.mode, err)
		}
	}
}
