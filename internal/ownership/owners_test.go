package ownership

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postmap"
)

// fake is a source in a map; the key "!" makes every look-up fail. It records
// the keys that were looked up.
type fake struct {
	entries map[string][]string
	asked   []string
	closed  error
}

var errDown = errors.New("backend down")

func (f *fake) Lookup(_ context.Context, key string) ([]string, error) {
	f.asked = append(f.asked, key)
	if _, down := f.entries["!"]; down {
		return nil, errDown
	}
	return f.entries[key], nil
}

func (f *fake) Locate(key string) string {
	if _, ok := f.entries[key]; ok {
		return "fake:" + key
	}
	return ""
}

func (f *fake) Close() error { return f.closed }

func table(entries ...string) postmap.Table {
	f := &fake{entries: map[string][]string{}}
	for _, e := range entries {
		key, value, _ := strings.Cut(e, "=")
		f.entries[key] = append(f.entries[key], value)
	}
	return postmap.Table{Spec: "fake:" + strings.Join(entries, ";"), Source: f}
}

func pattern(entries ...string) postmap.Table {
	t := table(entries...)
	t.Pattern = true
	return t
}

func newOwners(t testing.TB, c Config) *Owners {
	t.Helper()
	o, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestCheck(t *testing.T) {
	cacert := Config{LoginDomain: "cacert.org", LocalDomains: []string{"cacert.org"}, Delimiters: "+-", SelfOwned: true}
	with := func(c Config, owners, aliases []postmap.Table) Config {
		c.Owners, c.Aliases = owners, aliases
		return c
	}

	for _, c := range []struct {
		name          string
		config        Config
		sender, login string
		owned, listed bool
		how           How
		key           string
	}{
		{"exact", with(Config{}, one("a@x.org=jane, joe"), nil), "a@x.org", "joe", true, true, ByMap, "a@x.org"},
		{"case", with(Config{}, one("a@x.org=JANE@X.org"), nil), "A@X.ORG", "Jane@x.org", true, true, ByMap, "a@x.org"},
		{"case beyond ASCII", with(Config{}, one("jürgen@x.org=STRASSE"), nil), "JÜRGEN@x.org", "Straße", true, true, ByMap, "jürgen@x.org"},
		{"other owner", with(Config{}, one("a@x.org=jane"), nil), "a@x.org", "joe", false, true, "", "a@x.org"},
		{"unlisted", with(Config{}, one("a@x.org=jane"), nil), "b@x.org", "jane", false, false, "", ""},
		{"no login", with(Config{SelfOwned: true}, one("a@x.org=jane"), nil), "a@x.org", "", false, true, "", "a@x.org"},
		{"owner is no substring", with(Config{}, one("a@x.org=janedoe"), nil), "a@x.org", "jane", false, true, "", "a@x.org"},
		{"extension", with(Config{Delimiters: "+"}, one("a@x.org=jane"), nil), "a+tag@x.org", "jane", true, true, ByMap, "a@x.org"},
		{"extension listed itself", with(Config{Delimiters: "+"}, one("a@x.org=jane", "a+tag@x.org=joe"), nil), "a+tag@x.org", "jane", false, true, "", "a+tag@x.org"},
		{"second delimiter", with(Config{Delimiters: "+-"}, one("a@x.org=jane"), nil), "a-tag@x.org", "jane", true, true, ByMap, "a@x.org"},
		{"no delimiter", with(Config{}, one("a@x.org=jane"), nil), "a+tag@x.org", "jane", false, false, "", ""},
		{"catch-all", with(Config{}, one("@x.org=jane"), nil), "any@x.org", "jane", true, true, ByMap, "@x.org"},
		{"exact before catch-all", with(Config{}, one("@x.org=jane", "a@x.org=joe"), nil), "a@x.org", "jane", false, true, "", "a@x.org"},
		{"bare key, local domain", with(cacert, one("info=jane"), nil), "info@cacert.org", "jane", true, true, ByMap, "info"},
		{"bare key with extension", with(cacert, one("info=jane"), nil), "info+x@cacert.org", "jane", true, true, ByMap, "info"},
		{"bare key, other domain", with(cacert, one("info=jane"), nil), "info@x.org", "jane", false, false, "", ""},
		{"bare sender", with(cacert, one("info@cacert.org=jane"), nil), "info", "jane", true, true, ByMap, "info@cacert.org"},
		{"bare sender, bare key", with(Config{}, one("info=jane"), nil), "info", "jane", true, true, ByMap, "info"},
		{"bare owner, full login", with(cacert, one("pr@x.org=jane"), nil), "pr@x.org", "Jane@CAcert.org", true, true, ByMap, "pr@x.org"},
		{"full owner, bare login", with(cacert, one("pr@x.org=jane@cacert.org"), nil), "pr@x.org", "jane", true, true, ByMap, "pr@x.org"},
		{"owner of another domain", with(cacert, one("pr@x.org=jane@x.org"), nil), "pr@x.org", "jane", false, true, "", "pr@x.org"},
		{"self, bare login", cacert, "jane@cacert.org", "jane", true, false, BySelf, ""},
		{"self, full login", Config{SelfOwned: true}, "Jane@X.org", "jane@x.org", true, false, BySelf, ""},
		{"self with extension", cacert, "jane+x@cacert.org", "jane", true, false, BySelf, ""},
		{"self, bare sender", cacert, "jane", "jane", true, false, BySelf, ""},
		{"self, but listed for another", with(cacert, one("jane@cacert.org=joe"), nil), "jane@cacert.org", "jane", true, false, BySelf, ""},
		{"self switched off", with(Config{}, one("jane@x.org=joe"), nil), "jane@x.org", "jane@x.org", false, true, "", "jane@x.org"},
		{"no self without a domain", Config{SelfOwned: true}, "jane@x.org", "jane", false, false, "", ""},
		{"no bare self without a domain", Config{SelfOwned: true}, "jane", "jane", false, false, "", ""},
		{"quoted is another mailbox", Config{SelfOwned: true}, `"\"jane\""@x.org`, "jane@x.org", false, false, "", ""},
		{"quoted key", with(Config{}, one(`"a b"@x.org=jane`), nil), `"a b"@x.org`, "jane", true, true, ByMap, `"a b"@x.org`},
		{"unquoted key", with(Config{}, one("a b@x.org=jane"), nil), `"a b"@x.org`, "jane", true, true, ByMap, "a b@x.org"},
		{"last @ splits", with(Config{}, one("@x.org=jane"), nil), "a@y.org@x.org", "jane", true, true, ByMap, "@x.org"},
		{"U-label login", with(Config{}, one("a@x.org=jane@xn--bcher-kva.example"), nil), "a@x.org", "jane@bücher.example", true, true, ByMap, "a@x.org"},
		{"U-label sender", with(Config{}, one("a@xn--bcher-kva.example=jane"), nil), "a@Bücher.example", "jane", true, true, ByMap, "a@xn--bcher-kva.example"},
		{"U-label key", with(Config{}, one("a@bücher.example=jane"), nil), "a@xn--bcher-kva.example", "jane", true, true, ByMap, "a@bücher.example"},
		{"U-label catch-all", with(Config{}, one("@bücher.example=jane"), nil), "b@xn--bcher-kva.example", "jane", true, true, ByMap, "@bücher.example"},
		{"literal", with(Config{}, one("a@[ipv6:2001:db8::1]=jane"), nil), "a@[IPv6:2001:DB8:0::1]", "jane", true, true, ByMap, "a@[ipv6:2001:db8::1]"},
		{"invalid, unlisted", with(cacert, one("@x..org=jane"), nil), "a@x..org", "jane", false, false, "", ""},
		{"invalid, listed", with(Config{}, one("a@x..org=jane"), nil), "A@x..org", "jane", true, true, ByMap, "a@x..org"},
		{"union", with(Config{}, []postmap.Table{table("a@x.org=jane"), table("a@x.org=joe")}, nil), "a@x.org", "joe", true, true, ByMap, "a@x.org"},
		{"pattern", with(Config{}, []postmap.Table{pattern("a@x.org=jane")}, nil), "A@X.org", "jane", true, true, ByMap, "a@x.org"},
		{"pattern, capitals", with(Config{}, []postmap.Table{pattern("A@x.org=jane")}, nil), "A@x.org", "jane", false, false, "", ""},
		{"pattern, first match", with(Config{FirstMatch: true}, []postmap.Table{pattern("strasse@x.org=jane")}, nil), "STRAße@X.org", "jane", true, true, ByMap, "strasse@x.org"},
		{"pattern of aliases", with(Config{}, nil, []postmap.Table{pattern("A@x.org=jane@x.org")}), "A@x.org", "jane@x.org", true, true, ByAlias, "A@x.org"},
		{"pattern of aliases, first match", with(Config{FirstMatch: true}, nil, []postmap.Table{pattern("A@x.org=jane@x.org")}), "A@x.org", "jane@x.org", true, true, ByAlias, "A@x.org"},
		{"pattern, no parts", with(Config{Delimiters: "+"}, []postmap.Table{pattern("@x.org=jane", "a@x.org=jane")}, nil), "a+b@x.org", "jane", false, false, "", ""},
		{"pattern, U-labels", with(Config{}, []postmap.Table{pattern("a@bücher.example=jane")}, nil), "a@bücher.example", "jane", true, true, ByMap, "a@bücher.example"},
		{"pattern, invalid", with(Config{}, []postmap.Table{pattern("a@x..org=jane")}, nil), "A@x..org", "jane", true, true, ByMap, "a@x..org"},

		{"alias", with(Config{}, nil, one("sales@x.org=jane@x.org, joe@x.org")), "sales@x.org", "joe@x.org", true, true, ByAlias, "sales@x.org"},
		{"alias to others", with(Config{}, nil, one("sales@x.org=jane@x.org")), "sales@x.org", "joe@x.org", false, true, "", "sales@x.org"},
		{"alias, bare target", with(cacert, nil, one("pr@cacert.org=jane")), "pr@cacert.org", "jane@cacert.org", true, true, ByAlias, "pr@cacert.org"},
		{"alias, bare everything", with(Config{}, nil, one("pr@x.org=jane")), "pr@x.org", "jane", true, true, ByAlias, "pr@x.org"},
		{"alias, target with extension", with(cacert, nil, one("pr@cacert.org=jane+pr")), "pr@cacert.org", "jane", true, true, ByAlias, "pr@cacert.org"},
		{"alias, login with extension", with(cacert, nil, one("pr@cacert.org=jane")), "pr@cacert.org", "jane+pr", false, true, "", "pr@cacert.org"},
		{"alias, quoted target", with(Config{}, nil, one(`s@x.org="j, d"@x.org`)), "s@x.org", "j, d@x.org", true, true, ByAlias, "s@x.org"},
		{"alias, white space", with(Config{}, nil, one("s@x.org=a@x.org  b@x.org\t,c@x.org")), "s@x.org", "b@x.org", true, true, ByAlias, "s@x.org"},
		{"alias, other domain", with(Config{}, nil, one("@x.org=@y.org")), "jane@x.org", "jane@y.org", true, true, ByAlias, "@x.org"},
		{"alias, other domain not first", with(Config{}, nil, one("@x.org=a@y.org @y.org")), "jane@x.org", "jane@y.org", false, true, "", "@x.org"},
		{"alias, broken target", with(Config{}, nil, one(`s@x.org="a@x.org`)), "s@x.org", "a@x.org", false, true, "", "s@x.org"},
		{"alias of an extension", with(Config{Delimiters: "+"}, nil, one("s@x.org=j@x.org")), "s+t@x.org", "j@x.org", true, true, ByAlias, "s@x.org"},
		{"not nested", with(Config{}, nil, one("s@x.org=t@x.org", "t@x.org=j@x.org")), "s@x.org", "j@x.org", false, true, "", "s@x.org"},
		{"alias beside map", with(Config{}, one("s@x.org=jane"), one("s@x.org=j@x.org")), "s@x.org", "j@x.org", true, true, ByAlias, "s@x.org"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := newOwners(t, c.config).Check(t.Context(), mailaddr.Parse(c.sender), c.login)
			if err != nil {
				t.Fatal(err)
			}
			if got.Owned != c.owned || got.Listed != c.listed || got.How != c.how || got.Path.Key != c.key {
				t.Errorf("%q by %q: %+v", c.sender, c.login, got)
			}
			if (got.Path.Where() == "fake:"+c.key) != (c.key != "") {
				t.Errorf("is at %q", got.Path.Where())
			}
		})
	}
}

// TestOrder checks the order of the keys against mail_addr_find.
func TestOrder(t *testing.T) {
	for _, c := range []struct {
		sender string
		want   []string
	}{
		{"U+x@Local.org", []string{"u+x@local.org", "u@local.org", "u+x", "u", "@local.org"}},
		{"u@other.org", []string{"u@other.org", "@other.org"}},
		{`"a b"+x@local.org`, []string{`"a b"+x@local.org`}},
		{`"a b+x"@local.org`, []string{`"a b+x"@local.org`, "a b+x@local.org", `"a b"@local.org`, "a b@local.org", `"a b+x"`, "a b+x", `"a b"`, "a b", "@local.org"}},
		{"ü@büro.org", []string{"ü@xn--bro-hoa.org", "ü@büro.org", "@xn--bro-hoa.org", "@büro.org"}},
		{`"ü .+x"@bücher.org`, []string{`"ü .+x"@xn--bcher-kva.org`, `ü .+x@xn--bcher-kva.org`, `"ü .+x"@bücher.org`, `ü .+x@bücher.org`,
			`"ü ."@xn--bcher-kva.org`, `ü .@xn--bcher-kva.org`, `"ü ."@bücher.org`, `ü .@bücher.org`,
			`"ü .+x"`, `ü .+x`, `"ü ."`, `ü .`, "@xn--bcher-kva.org", "@bücher.org"}},
		{"root", []string{"root"}},
		{"root+x", []string{"root+x", "root"}},
	} {
		f, p := table(), pattern()
		o := newOwners(t, Config{Owners: []postmap.Table{f, p}, LocalDomains: []string{"LOCAL.org", "bücher.org"}, Delimiters: "+"})
		if _, err := o.Check(t.Context(), mailaddr.Parse(c.sender), "x"); err != nil {
			t.Fatal(err)
		}
		if asked := f.Source.(*fake).asked; !slices.Equal(asked, c.want) {
			t.Errorf("%s: asked\n%q, want\n%q", c.sender, asked, c.want)
		}
		for _, key := range p.Source.(*fake).asked {
			if a := mailaddr.Parse(c.sender); a.Err() == nil && !strings.Contains(key[1:], "@") {
				t.Errorf("%s: a pattern table was asked for %q", c.sender, key)
			}
		}
	}
}

func TestNoAnswer(t *testing.T) {
	down, grants, denies := table("!="), table("a@x.org=jane"), table("a@x.org=joe")
	for _, c := range []struct {
		name                string
		tables              []postmap.Table
		owned, listed, fail bool
	}{
		{"granted before", []postmap.Table{grants, down}, true, true, false},
		{"granted after", []postmap.Table{down, grants}, true, true, false},
		{"denied elsewhere", []postmap.Table{down, denies}, false, true, true},
		{"unlisted elsewhere", []postmap.Table{table(), down}, false, false, true},
		{"all down", []postmap.Table{down, down}, false, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, config := range []Config{{Owners: c.tables}, {Owners: c.tables[:1], Aliases: c.tables[1:]}} {
				got, err := newOwners(t, config).Check(t.Context(), mailaddr.Parse("a@x.org"), "jane")
				if got.Owned != c.owned || got.Listed != c.listed || errors.Is(err, errDown) != c.fail {
					t.Errorf("%+v, %v", got, err)
				}
				if err != nil && !strings.Contains(err.Error(), `table fake:!=: look up "a@x.org"`) {
					t.Errorf("the error does not name table and key: %v", err)
				}
			}
		})
	}
}

func TestOwnersAreNamed(t *testing.T) {
	many := make([]string, 3*MaxOwners)
	for i := range many {
		many[i] = strings.Repeat("x", i+1)
	}
	o := newOwners(t, Config{
		Owners:  []postmap.Table{table("a@x.org=joe, JANE"), table("a@x.org=jane,bob")},
		Aliases: []postmap.Table{table("a@x.org=" + strings.Join(many, " "))},
	})
	got, err := o.Check(t.Context(), mailaddr.Parse("a@x.org"), "nobody")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Owners) != MaxOwners || !slices.Equal(got.Owners[:4], []string{"joe", "JANE", "bob", "x"}) {
		t.Errorf("owners %q", got.Owners)
	}
	if got.Path.Entry != "joe, JANE" {
		t.Errorf("path %+v", got.Path)
	}
	if granted, _ := o.Check(t.Context(), mailaddr.Parse("a@x.org"), "jane"); granted.Owners != nil {
		t.Errorf("a granted answer names %q", granted.Owners)
	}
}

func TestNewRejects(t *testing.T) {
	for want, c := range map[string]Config{
		`local domain "x..org"`:    {LocalDomains: []string{"ok.org", "x..org"}},
		`login domain "@x.org"`:    {LoginDomain: "@x.org"},
		`recipient delimiter "+@"`: {Delimiters: "+@"},
		`recipient delimiter "+ "`: {Delimiters: "+ "},
		`recipient delimiter "ü"`:  {Delimiters: "ü"},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}

func TestFilesAndClose(t *testing.T) {
	a, b := table(), table()
	a.Files, b.Files = []string{"/z", "/a"}, []string{"/a"}
	b.Source.(*fake).closed = errDown
	o := newOwners(t, Config{Owners: []postmap.Table{a}, Aliases: []postmap.Table{b}})
	if files := o.Files(); !slices.Equal(files, []string{"/a", "/z"}) {
		t.Errorf("files %q", files)
	}
	if err := o.Close(); !errors.Is(err, errDown) {
		t.Errorf("close: %v", err)
	}
	if where := new(Path).Where(); where != "" {
		t.Errorf("an empty path is at %q", where)
	}
	if where := (postmap.Table{Source: struct{ postmap.Source }{}}).Locate("x"); where != "" {
		t.Errorf("a source without places locates %q", where)
	}
}

// FuzzCheck looks for panics and for a sender that is owned without being listed.
func FuzzCheck(f *testing.F) {
	f.Add("a@x.org", "jane", "a@x.org", "jane, joe", "+")
	f.Add(`"a@b"@x.org`, "ü", "@x.org", "@y.org", "-+")
	f.Add("a+b@bücher.example", "", "a", `"x y"@z,,`, "")
	f.Add("\x00", "@", "@", "\\", "+")
	f.Fuzz(func(t *testing.T, sender, login, key, value, delims string) {
		if value == "" {
			return
		}
		single := postmap.Table{Source: &fake{entries: map[string][]string{key: {value}}}}
		for _, c := range []Config{{Owners: []postmap.Table{single}}, {Aliases: []postmap.Table{single}}} {
			c.Delimiters, c.LoginDomain, c.LocalDomains = delims, "x.org", []string{"x.org"}
			o, err := New(c)
			if err != nil {
				return
			}
			answer, err := o.Check(t.Context(), mailaddr.ParseInternal(sender), login)
			if key != "!" && err != nil {
				t.Fatal(err)
			}
			if answer.Owned && (!answer.Listed || answer.How == "" || answer.Path.Key != key) {
				t.Fatalf("owned without reason: %+v", answer)
			}
		}
	})
}

func one(entries ...string) []postmap.Table { return []postmap.Table{table(entries...)} }
