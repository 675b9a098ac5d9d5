package postmap

import (
	"bytes"
	"errors"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// TestAgainstPostmap asks the real postmap(1) and this package for the same keys
// of the same tables. Postfix's own configuration is not touched: postmap gets a
// folder with the few lines it needs.
func TestAgainstPostmap(t *testing.T) {
	p := newPostmap(t)
	const text = `# owners of senders
User@Example.com   one, two
key@x.org v1
  v2
	# comment inside

  v3
dup@x.org first
DUP@x.org second
"a b"@x.org quoted
"A\"b"@x.org backslash
esc\ aped@x.org escaped
JÜRGEN@bücher.example j
Straße@x.org s
ΣΊΣΥΦΟΣ@x.org greek
@x.org everybody
bare single
alias: colon
user+tag@x.org tagged
@bücher.example all
[192.0.2.1] literal
a@[IPv6:2001:db8::1] six
crlf@x.org value` + "\r\n" + `tab@x.org	tabbed	value	
#@x.org commented
hash#@x.org in#side
last@x.org nonewline`
	keys := []string{
		"user@example.com", "USER@EXAMPLE.COM", "user@example.com ", "key@x.org", "dup@x.org", "DUP@X.ORG", `"a b"@x.org`, `"A B"@X.org`,
		"a b@x.org", `"a\"b"@x.org`, `esc\ aped@x.org`, "esc aped@x.org", "jürgen@bücher.example", "JÜRGEN@BÜCHER.example",
		"strasse@x.org", "straße@x.org", "STRASSE@x.org", "σίσυφος@x.org", "ΣΊΣΥΦΟς@x.org", "@x.org", "@X.ORG", "bare", "BARE", "alias:", "alias",
		"user+tag@x.org", "@bücher.example", "[192.0.2.1]", "a@[IPv6:2001:db8::1]", "a@[ipv6:2001:DB8::1]", "crlf@x.org", "tab@x.org",
		"#@x.org", "hash#@x.org", "last@x.org", "none@x.org", "v2", "# comment inside", "\xff@x.org", "x@y@x.org",
	}
	for _, mapType := range []string{"hash", "btree", "cdb", "lmdb", "texthash"} {
		t.Run(mapType, func(t *testing.T) {
			path := file(t, "owners", text)
			if mapType != "texthash" {
				p.run(t, "", mapType+":"+path)
			}
			p.compare(t, mapType+":"+path, keys)
		})
	}
	t.Run("postmap -s writes the text back", func(t *testing.T) {
		path := file(t, "owners", text)
		p.run(t, "", "hash:"+path)
		restored := file(t, "restored", p.run(t, "", "-s", "hash:"+path))
		p.run(t, "", "hash:"+restored)
		p.compare(t, "hash:"+restored, keys)
	})
}

func TestPatternsAgainstPostmap(t *testing.T) {
	p := newPostmap(t)
	const both = `# rules
/^USER@Example\.com$/ one, two
/^u([0-9]+)@(x)\.org$/ $1-${2}-$(1)$$
if /@y\.org$/
IF !/^a/
/^(.*)@/ y-$1
endif
/^a/ ya
ENDIF
/^cs@/i CS
|^alt@| alt
!! /^dd@/ double
!/@/ bare
/^long(a|ab)(c|bcd)?@/ [$1][$2]
/^opt(x)?@/ <$1>
/^br[]x]@/ br
/^slash\/@/ slash
/^(a|b)*c{2,3}@/ rep $1
/^[^@[:space:]]+\+([[:alnum:]]+)@z\.org$/ tag $1
/^\$@/ dollar
/^ü@/ umlaut
`
	keys := []string{
		"user@example.com", "USER@EXAMPLE.COM", "user@exampleXcom", "u12@x.org", "U12@X.org", "b@y.org", "a@y.org", "A@Y.org", "cs@q", "CS@q",
		"alt@q", "dd@q", "nodomain", "longabcd@q", "longab@q", "longac@q", "opt@q", "optx@q", "br]@q", `br\]@q`, `br\@q`, "brx@q", "slash/@q", "abcc@q", "cc@q", "cccc@q",
		"me+tag@z.org", "me+t-g@z.org", "$@q", "ü@q", "unlisted@q", "@q",
	}
	const posix = both + "/^p1/!/z$/ second\n/^b[\\.]@/ back\n/q{,2}w@/ upto\n/^[[]@/ open\n/^x+?y@/ opt\n/^(w|wi)(i?)/ <$1>\n/^s\\ss$/ space\n/^t**z@/ stars\n/(^)*gr@/ group\n/^}@/ brace\n/^h{2}{2}@/ twice\n/^v{,}w@/ any\n/^\\^*r@/ hats\n"
	const pcre = both + "/^d\\d+@/ digits\n/^ x y # c/x extended\n/n/A anchored\n/^(.*)-(.*)@/U $1|$2\n/^\\Qa.b\\E@/ quoted\n/^(?:g)(h)@/ $1\n/^k$/E end\n/^(?i)LL@/i folded\n"
	more := []string{"p1x", "p1z", "b.@q", `b\@q`, "qqw@q", "qqqw@q", "[@q", "xxy@q", "y@q", "wii@q", "s s", "d12@q", "d@q", "xy@q", "xn@q", "n@q", "a-b-c@q", "a.b@q", "aXb@q", "gh@q", "k", "ll@q", "ttz@q", "z@q", "gr@q", "}@q", "hhhh@q", "hh@q", "vvw@q", "^^r@q", "r@q"}
	t.Run("regexp", func(t *testing.T) { p.compare(t, "regexp:"+file(t, "rules", posix), append(keys, more...)) })
	t.Run("pcre", func(t *testing.T) { p.compare(t, "pcre:"+file(t, "rules", pcre), append(keys, more...)) })
}

func TestInlineAgainstPostmap(t *testing.T) {
	p := newPostmap(t)
	text := file(t, "owners", "A@x.org one\nb@x.org two\n")
	rules := file(t, "rules", "/^a@/ three\n/@y\\.org$/ four\n")
	p.run(t, "", "hash:"+text)
	keys := []string{"a", "A", "b", "a@x.org", "A@X.ORG", "b@x.org", "c@y.org", "C@Y.org", `"a b"`, "a b", `k\ l`, "jürgen@x.org", "zz", `"f=g"`}
	for _, spec := range []string{
		"inline:{a=1, a=2}", "inline:{ {A = x y} , b=2}", `inline:{ {"a b" = q}, {k\ l = m}, "f=g"=h }`, "inline:{a={b}, JÜRGEN@x.org=j}", "inline:{,a=b=c,,}",
		"static:all", "static:{two words}", "static:{ trimmed }",
		"unionmap:{inline:{a=1}, inline:{a=2,b=3}, static:s}", "unionmap:{hash:" + text + ", regexp:" + rules + "}", "unionmap:{pcre:" + rules + ",hash:" + text + "}",
		"unionmap:{inline:{ {a = 1 2} } static:{u v}}",
	} {
		t.Run(spec[:min(len(spec), 24)], func(t *testing.T) { p.compare(t, spec, keys) })
	}
}

// TestAliasesAgainstPostmap asks tables that postalias(1) compiled from aliases(5).
func TestAliasesAgainstPostmap(t *testing.T) {
	p := newPostmap(t)
	keys := []string{"postmaster", "POSTMASTER", "root", "abuse", "two words", "colon:ed", "prog", "list", "owner-list", "none", "postmaster:", "tight", "spaced", "more"}
	for name, text := range map[string]string{
		"usual":  "# /etc/aliases\npostmaster:    root\nRoot: bob\nabuse:\tpostmaster, bob\n",
		"quoted": "\"two words\": bob\n\"colon:ed\": ann\nprog: \"|/usr/bin/prog -a, b\"\nlist: :include:/etc/list\n",
		"tight":  "postmaster:root\ntight:bob,ann\nspaced : bob\n",
		"long":   "list: ann,\n  bob ,\n\tcara@x.example\nowner-list: ann\nmore: \\ann, bob\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := file(t, "aliases", text)
			alias := p
			alias.program = strings.Replace(p.program, "postmap", "postalias", 1)
			alias.run(t, "", "hash:"+path)
			p.compare(t, "hash:"+path, keys)
		})
	}
	t.Run("texthash is no aliases(5) text", func(t *testing.T) {
		p.compare(t, "texthash:"+file(t, "aliases", "postmaster:    root\nRoot: bob\n"), append(keys, "root:"))
	})
}

// TestRefusedLikePostmap holds that no name is opened that Postfix refuses.
func TestRefusedLikePostmap(t *testing.T) {
	p := newPostmap(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, spec := range []string{
		"inline:{}", "inline:{a}", "inline:a=b", "inline:{a=b", "inline:{ {a=b}c=d }", "inline:{a = b}", "inline:{ {} }", "static:{a", "static:{a} b", "static:",
		"unionmap:{}", "unionmap:{foo}", "unionmap:inline:{a=1}", "unionmap:{{static:a}}", "nosuchtype:a",
	} {
		wg.Go(func() { // postmap sleeps for a second before it gives up
			if out, err := p.command("", "-q", "a", spec); err == nil || !strings.Contains(out, "fatal") {
				t.Errorf("%s: postmap takes it: %v %s", spec, err, out)
			}
		})
		if _, err := Open(spec, Options{}); err == nil {
			t.Errorf("%s: opened", spec)
		}
	}
}

// postmap is the real program with a configuration of its own.
type postmap struct{ program, config string }

// newPostmap skips the test where Postfix is not installed, but not in CI.
func newPostmap(t *testing.T) postmap {
	t.Helper()
	if testing.Short() {
		t.Skip("runs postmap(1) for each question, and the tests run without Postfix (-short)")
	}
	program, err := exec.LookPath("postmap")
	if err != nil {
		program = "/usr/sbin/postmap"
		_, err = os.Stat(program)
	}
	if err != nil {
		missing(t, "postmap is not installed (Debian: postfix, postfix-cdb, postfix-lmdb, postfix-pcre)")
	}
	dir := t.TempDir()
	config := "compatibility_level = 3.6\nsmtputf8_enable = yes\nqueue_directory = " + dir + "\ndata_directory = " + dir + "\n"
	for name, text := range map[string]string{"main.cf": config, "master.cf": ""} {
		write(t, filepath.Join(dir, name), text)
	}
	return postmap{program, dir}
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func (p postmap) command(stdin string, args ...string) (output string, err error) {
	c := exec.Command(p.program, append([]string{"-c", p.config}, args...)...)
	var out, problems bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &problems
	if err := c.Run(); err != nil {
		return problems.String(), err
	}
	return out.String(), nil
}

func (p postmap) run(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := p.command(stdin, args...)
	if err != nil && strings.Contains(out, "Is the postfix-") {
		missing(t, "postmap "+strings.Join(args, " ")+": "+out)
	}
	if err != nil {
		t.Fatalf("postmap %q: %v: %s", args, err, out)
	}
	return out
}

// query asks postmap for many keys at once; the answer has those it lists.
func (p postmap) query(t *testing.T, spec string, keys []string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	for line := range strings.Lines(p.run(t, strings.Join(keys, "\n")+"\n", "-q", "-", spec)) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok {
			t.Fatalf("%s: postmap answers %q", spec, line)
		}
		found[key] = value
	}
	return found
}

// answer is what postmap gives for one key.
type answer struct{ key, value string }

// each asks postmap for all keys in one run, and for one after the other if a key
// makes that run fail.
func (p postmap) each(t *testing.T, spec string, keys []string) iter.Seq2[answer, error] {
	t.Helper()
	found, err := p.several(t, spec, keys)
	return func(yield func(answer, error) bool) {
		for _, key := range keys {
			of, failed := found, error(nil)
			if err != nil {
				of, failed = p.several(t, spec, []string{key})
			}
			if !yield(answer{key, of[key]}, failed) {
				return
			}
		}
	}
}

// several is query for tables that may fail or list none of the keys.
func (p postmap) several(t *testing.T, spec string, keys []string) (map[string]string, error) {
	t.Helper()
	found := map[string]string{}
	out, err := p.command(strings.Join(keys, "\n")+"\n", "-q", "-", spec)
	if strings.Contains(out, "Is the postfix-") {
		missing(t, "postmap "+spec+": "+out)
	}
	if err != nil {
		if strings.Contains(out, "fatal") {
			return found, errors.New(out)
		}
		return found, nil // none found, be it with a warning
	}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		found[key] = value
	}
	return found, nil
}

// compare asks both sides for every key. postmap fails when it lists none of them,
// so there is always something to compare.
func (p postmap) compare(t *testing.T, spec string, keys []string) {
	t.Helper()
	table, err := Open(spec, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := p.query(t, spec, keys)
	for _, key := range keys {
		ask := key
		if !table.Pattern {
			ask = mailaddr.FoldKey(key)
		}
		values, err := table.Source.Lookup(t.Context(), ask)
		if got := strings.Join(values, ","); err != nil || got != want[key] {
			t.Errorf("%s: %q: got %q, %v, want %q", spec, key, got, err, want[key])
		}
	}
}
