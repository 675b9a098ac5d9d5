package mailaddr

import (
	"errors"
	"strings"
	"testing"
)

// want is the expected result; problem is nil for a mailbox.
type want struct {
	local, domain, text, key string
	problem                  error
}

func check(t *testing.T, a Address, raw string, w want) {
	t.Helper()
	if a.Raw != raw {
		t.Errorf("Raw = %q, want %q", a.Raw, raw)
	}
	if got := (want{a.Local, a.Domain, a.String(), a.Key(), a.Err()}); got != w {
		t.Errorf("got  %+v\nwant %+v", got, w)
	}
}

func TestParse(t *testing.T) {
	long := strings.Repeat("a", MaxLocal)
	for raw, w := range map[string]want{
		"":                               {},
		"<>":                             {},
		"jane@example.com":               {"jane", "example.com", "jane@example.com", "jane@example.com", nil},
		"<jane@example.com>":             {"jane", "example.com", "jane@example.com", "jane@example.com", nil},
		"Jane@Example.COM.":              {"Jane", "example.com", "Jane@example.com", "Jane@example.com", nil},
		`"a b"@x.org`:                    {"a b", "x.org", `"a b"@x.org`, "a b@x.org", nil},
		`"jane"@x.org`:                   {"jane", "x.org", "jane@x.org", "jane@x.org", nil},
		`"a\"\\\b"@x.org`:                {`a"\b`, "x.org", `"a\"\\b"@x.org`, `a"\b@x.org`, nil},
		`"a@b"@x.org`:                    {"a@b", "x.org", `"a@b"@x.org`, "a@b@x.org", nil},
		"a@b@x.org":                      {"a@b", "x.org", `"a@b"@x.org`, "a@b@x.org", nil},
		"a..b@x.org":                     {"a..b", "x.org", `"a..b"@x.org`, "a..b@x.org", nil},
		"a.@x.org":                       {"a.", "x.org", `"a."@x.org`, "a.@x.org", nil},
		"<@r1,@r2:a@x.org>":              {"a", "x.org", "a@x.org", "a@x.org", nil},
		"jürgen@bücher.example":          {"jürgen", "xn--bcher-kva.example", "jürgen@xn--bcher-kva.example", "jürgen@xn--bcher-kva.example", nil},
		"a@XN--BCHER-KVA.example":        {"a", "xn--bcher-kva.example", "a@xn--bcher-kva.example", "a@xn--bcher-kva.example", nil},
		"a@b\u3002example":               {"a", "b.example", "a@b.example", "a@b.example", nil},
		"a@_dmarc.x_y.org":               {"a", "_dmarc.x_y.org", "a@_dmarc.x_y.org", "a@_dmarc.x_y.org", nil},
		"a@xn--a.example":                {"a", "xn--a.example", "a@xn--a.example", "a@xn--a.example", nil},
		"a@[192.0.2.1]":                  {"a", "[192.0.2.1]", "a@[192.0.2.1]", "a@[192.0.2.1]", nil},
		"a@[ipv6:2001:DB8:0:0::1]":       {"a", "[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]", nil},
		"postmaster":                     {"postmaster", "", "postmaster", "postmaster", ErrNoDomain},
		`"a b"`:                          {"a b", "", `"a b"`, "a b", ErrNoDomain},
		long + "@x.org":                  {long, "x.org", long + "@x.org", long + "@x.org", nil},
		long + "a@x.org":                 {"", "", long + "a@x.org", long + "a@x.org", ErrLocalTooLong},
		"@x.org":                         {"", "", "@x.org", "@x.org", ErrEmptyLocal},
		`""@x.org`:                       {"", "", `""@x.org`, `""@x.org`, ErrEmptyLocal},
		"a@":                             {"", "", "a@", "a@", ErrEmptyDomain},
		"a@.":                            {"", "", "a@.", "a@.", ErrEmptyDomain},
		"a@x..org":                       {"", "", "a@x..org", "a@x..org", ErrLabel},
		"a@-x.org":                       {"", "", "a@-x.org", "a@-x.org", ErrLabel},
		"a@x-.org":                       {"", "", "a@x-.org", "a@x-.org", ErrLabel},
		"a@x/y":                          {"", "", "a@x/y", "a@x/y", ErrDomainChar},
		"a@b ü.org":                      {"", "", "a@b ü.org", "a@b ü.org", ErrDomainChar},
		"a@x\x00.org":                    {"", "", "a@x\x00.org", "a@x\x00.org", ErrControl},
		"a\r@x.org":                      {"", "", "a\r@x.org", "a\r@x.org", ErrControl},
		"a\x00@x.org":                    {"", "", "a\x00@x.org", "a\x00@x.org", ErrControl},
		"a\u0085@x.org":                  {"", "", "a\u0085@x.org", "a\u0085@x.org", ErrControl},
		"\"a\tb\"@x.org":                 {"", "", "\"a\tb\"@x.org", "\"a\tb\"@x.org", ErrControl},
		"\xff@x.org":                     {"", "", "\xff@x.org", "\xff@x.org", ErrUTF8},
		"a@\xff.org":                     {"", "", "a@\xff.org", "a@\xff.org", ErrUTF8},
		"a@ü\u200d.org":                  {"", "", "a@ü\u200d.org", "a@ü\u200d.org", ErrUnicodeDomain},
		`"a@x.org`:                       {"", "", `"a@x.org`, `"a@x.org`, ErrQuote},
		`"a\"@x.org`:                     {"", "", `"a\"@x.org`, `"a\"@x.org`, ErrQuote},
		`"a"b@x.org`:                     {"", "", `"a"b@x.org`, `"a"b@x.org`, ErrQuote},
		`"`:                              {"", "", `"`, `"`, ErrQuote},
		"a b@x.org":                      {"", "", "a b@x.org", "a b@x.org", ErrSpecial},
		`a\b@x.org`:                      {"", "", `a\b@x.org`, `a\b@x.org`, ErrSpecial},
		"<a@x.org":                       {"", "", "<a@x.org", "<a@x.org", ErrBrackets},
		"a@x.org>":                       {"", "", "a@x.org>", "a@x.org>", ErrBrackets},
		"<":                              {"", "", "<", "<", ErrBrackets},
		">":                              {"", "", ">", ">", ErrBrackets},
		"a@[]":                           {"", "", "a@[]", "a@[]", ErrLiteral},
		"a@[192.0.2.1":                   {"", "", "a@[192.0.2.1", "a@[192.0.2.1", ErrLiteral},
		"a@[2001:db8::1]":                {"", "", "a@[2001:db8::1]", "a@[2001:db8::1]", ErrLiteral},
		"a@[IPv6:192.0.2.1]":             {"", "", "a@[IPv6:192.0.2.1]", "a@[IPv6:192.0.2.1]", ErrLiteral},
		"a@[IPv6:fe80::1%eth0]":          {"", "", "a@[IPv6:fe80::1%eth0]", "a@[IPv6:fe80::1%eth0]", ErrLiteral},
		"a@" + strings.Repeat("a", 64):   {"", "", "a@" + strings.Repeat("a", 64), "a@" + strings.Repeat("a", 64), ErrLabel},
		"a@" + strings.Repeat("a.", 128): {"", "", "a@" + strings.Repeat("a.", 128), "a@" + strings.Repeat("a.", 128), ErrDomainTooLong},
		"a@" + strings.Repeat("ü", 1013): {"", "", "a@" + strings.Repeat("ü", 1013), "a@" + strings.Repeat("ü", 1013), ErrDomainTooLong},
	} {
		t.Run(raw[:min(len(raw), 30)], func(t *testing.T) { check(t, Parse(raw), raw, w) })
	}
}

func TestParseInternal(t *testing.T) {
	for raw, w := range map[string]want{
		"":                 {},
		"<>":               {},
		"jane@example.com": {"jane", "example.com", "jane@example.com", "jane@example.com", nil},
		"a b@x.org":        {"a b", "x.org", `"a b"@x.org`, "a b@x.org", nil},
		"a@b@x.org":        {"a@b", "x.org", `"a@b"@x.org`, "a@b@x.org", nil},
		`"ceo"@x.org`:      {`"ceo"`, "x.org", `"\"ceo\""@x.org`, `"ceo"@x.org`, nil},
		`a\@x.org`:         {`a\`, "x.org", `"a\\"@x.org`, `a\@x.org`, nil},
		"<a>@x.org":        {"<a>", "x.org", `"<a>"@x.org`, "<a>@x.org", nil},
		"root":             {"root", "", "root", "root", ErrNoDomain},
		"a@x.org>":         {"", "", "a@x.org>", "a@x.org>", ErrDomainChar},
		"@x.org":           {"", "", "@x.org", "@x.org", ErrEmptyLocal},
		"a\nb@x.org":       {"", "", "a\nb@x.org", "a\nb@x.org", ErrControl},
	} {
		t.Run(raw, func(t *testing.T) { check(t, ParseInternal(raw), raw, w) })
	}
}

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		raw                        string
		null, bare, literal, valid bool
	}{
		{"", true, false, false, false},
		{"<>", true, false, false, false},
		{"root", false, true, false, true},
		{"a@[192.0.2.1]", false, false, true, true},
		{"a@x.org", false, false, false, true},
		{"a@x..org", false, false, false, false},
	} {
		a := Parse(c.raw)
		if a.IsNull() != c.null || a.IsBare() != c.bare || a.IsLiteral() != c.literal || a.IsValid() != c.valid {
			t.Errorf("%q: null %v bare %v literal %v valid %v", c.raw, a.IsNull(), a.IsBare(), a.IsLiteral(), a.IsValid())
		}
	}
	if !(Address{}).IsNull() {
		t.Error("the zero value is not the null sender")
	}
}

func TestSplitExtension(t *testing.T) {
	for _, c := range []struct {
		local, delims, base, ext string
		ok                       bool
	}{
		{"user+tag", "+", "user", "tag", true},
		{"user+tag", "", "user+tag", "", false},
		{"user+a+b", "+", "user", "a+b", true},
		{"user-a+b", "+-", "user", "a+b", true},
		{"user+a-b", "+-", "user", "a-b", true},
		{"user+", "+", "user", "", true},
		{"+tag", "+", "+tag", "", false},
		{"user", "+", "user", "", false},
		{"postmaster", "o", "postmaster", "", false},
		{"Mailer-Daemon", "-", "Mailer-Daemon", "", false},
		{"double-bounce", "-", "double-bounce", "", false},
		{"postmaster+x", "+", "postmaster", "x", true},
		{"owner-list", "-", "owner-list", "", false},
		{"Owner-list+x", "+-", "Owner-list+x", "", false},
		{"owner-list+x", "+", "owner-list", "x", true},
		{"list-request", "-", "list-request", "", false},
		{"-request", "-", "-request", "", false},
		{"list-Request", "+-", "list-Request", "", false},
		{"jürgen+ü", "+", "jürgen", "ü", true},
	} {
		a := ParseInternal(c.local + "@x.org")
		base, ext, ok := a.SplitExtension(c.delims)
		if base.Local != c.base || ext != c.ext || ok != c.ok || base.Domain != "x.org" {
			t.Errorf("%q by %q: %q %q %v", c.local, c.delims, base.Local, ext, ok)
		}
		if base.Key() != c.base+"@x.org" {
			t.Errorf("%q by %q: key of the base is %q", c.local, c.delims, base.Key())
		}
	}
}

func TestWithDomain(t *testing.T) {
	if got := Parse("root").WithDomain("x.org"); got.Key() != "root@x.org" || got.Err() != nil || got.Raw != "root" {
		t.Errorf("bare: %+v", got)
	}
	for _, raw := range []string{"a@y.org", "", "a@x..org"} {
		if got := Parse(raw); got.WithDomain("x.org") != got {
			t.Errorf("%q was changed", raw)
		}
	}
	if a := Parse("root"); a.WithDomain("") != a {
		t.Error("no domain changed the address")
	}
}

func TestParseDomain(t *testing.T) {
	for _, c := range []struct {
		in, want string
		err      error
	}{
		{"Example.COM.", "example.com", nil},
		{"Bücher.example", "xn--bcher-kva.example", nil},
		{"straße.example", "xn--strae-oqa.example", nil},
		{"localhost", "localhost", nil},
		{"", "", ErrEmptyDomain},
		{"[192.0.2.1]", "", ErrDomainChar},
		{"a b", "", ErrDomainChar},
		{"x..org", "", ErrLabel},
	} {
		got, err := ParseDomain(c.in)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("ParseDomain(%q) = %q, %v", c.in, got, err)
		}
	}
}

func TestUnicodeDomain(t *testing.T) {
	for raw, want := range map[string]string{
		"a@bücher.example":  "bücher.example",
		"a@example.com":     "example.com",
		"a@xn--a.example":   "xn--a.example",
		"a@_x.bücher.local": "_x.bücher.local",
	} {
		if got := Parse(raw).UnicodeDomain(); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
}

func TestFold(t *testing.T) {
	for in, want := range map[string]string{
		"Jane":     "jane",
		"JÜRGEN":   "jürgen",
		"Straße":   "strasse",
		"ΣΊΣΥΦΟΣ":  "σίσυφοσ",
		"A\xffÜ":   "a\xffÜ",
		"":         "",
		"\u212a":   "k",
		"I":        "i",
		"\u13cf":   "\u13cf",
		"\uab9f":   "\u13cf",
		"\u13f8":   "\u13f0",
		"\u0130":   "i\u0307",
		"ALREADY1": "already1",
	} {
		if got := Fold(in); got != want {
			t.Errorf("Fold(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestFoldKey(t *testing.T) {
	for in, want := range map[string]string{
		"User":                   "user",
		"User@Example.COM":       "user@example.com",
		"User@Example.COM.":      "user@example.com",
		"@BÜCHER.example":        "@xn--bcher-kva.example",
		"Straße@Bücher.example":  "strasse@xn--bcher-kva.example",
		`"A b"@X.org`:            `"a b"@x.org`,
		"a@[IPv6:2001:DB8:0::1]": "a@[ipv6:2001:db8::1]",
		"A@":                     "a@",
		"A@Ü b":                  "a@ü b",
	} {
		if got := FoldKey(in); got != want {
			t.Errorf("FoldKey(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "<>", "a@b", `"a\"@b"@x.org`, "<@a,@b:c@d>", "jürgen@bücher.example", "a@[IPv6:::1]", "a\x00@b",
		"a@\xff", "postmaster", "a@b@c", "a@xn--a", "\"\"@x", "a@b。c", "A@ẞ.de", "a@" + strings.Repeat("ü.", 200),
		"some.user+tag@mail.example.com", "a..b@x.org", "a.@x.org", "A@x.org", "a@X.org", "a@x.org.", "a@x.xn--a", "a@-x", "longer.than.eight@x.[", "a@[x]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		for _, a := range []Address{Parse(raw), ParseInternal(raw)} {
			holdsInvariants(t, a, raw)
		}
		holdsPlain(t, raw)
		if once := Fold(raw); Fold(once) != once {
			t.Errorf("Fold(%q) = %q, folded again %q", raw, once, Fold(once))
		}
		if FoldKey(raw) != foldKey(raw) || isLower(raw) != (isASCII(raw) && raw == lower(raw)) {
			t.Errorf("FoldKey(%q) = %q, in full %q; isLower %t", raw, FoldKey(raw), foldKey(raw), isLower(raw))
		}
		if a := ParseInternal(raw); a.IsValid() && FoldKey(raw) != FoldKey(a.Key()) {
			t.Errorf("FoldKey(%q) = %q, of the parsed key %q", raw, FoldKey(raw), FoldKey(a.Key()))
		}
	})
}

func holdsInvariants(t *testing.T, a Address, raw string) {
	t.Helper()
	if a.Raw != raw {
		t.Fatalf("Raw %q is not %q", a.Raw, raw)
	}
	if a.Err() != nil && !a.IsBare() {
		if a.Local != "" || a.Domain != "" || a.IsNull() || a.String() != raw || a.Key() != raw {
			t.Fatalf("invalid but not empty: %+v", a)
		}
		return
	}
	if len(a.Local) > MaxLocal || len(a.Domain) > MaxDomain || strings.ContainsAny(a.Local+a.Domain, "\x00\r\n") {
		t.Fatalf("valid but out of bounds: %+v", a)
	}
	again, internal := Parse(a.String()), ParseInternal(a.Key())
	if again.Local != a.Local || again.Domain != a.Domain || again.err != a.err {
		t.Fatalf("%q: String %q parses to %+v", raw, a.String(), again)
	}
	if !a.IsBare() && (internal.Local != a.Local || internal.Domain != a.Domain) {
		t.Fatalf("%q: Key %q parses to %+v", raw, a.Key(), internal)
	}
	if base, ext, ok := a.SplitExtension("+-"); ok && (base.Local == "" || len(base.Local)+1+len(ext) != len(a.Local)) {
		t.Fatalf("%q splits into %q and %q", a.Local, base.Local, ext)
	}
}

// holdsPlain compares the fast parser of plain addresses with the full one.
func holdsPlain(t *testing.T, raw string) {
	t.Helper()
	a := ParseInternal(raw)
	full, external := parseInternal(raw), parseExternal(raw)
	if got := Parse(raw); got.plain != a.plain {
		t.Fatalf("%q is plain in one form only", raw)
	}
	if !a.IsPlain() {
		if a != full || Parse(raw) != external {
			t.Fatalf("%q: %+v and %+v", raw, a, full)
		}
		return
	}
	a.plain = false
	if a != full || a != external {
		t.Fatalf("%q is plain, but reads %+v, %+v in full", raw, full, external)
	}
	for _, same := range []string{full.String(), full.Key(), foldKey(raw), full.Local + "@" + full.UnicodeDomain(), Quote(full.Local) + "@" + full.Domain} {
		if same != raw {
			t.Fatalf("%q is plain, but has the spelling %q", raw, same)
		}
	}
}

func TestIsPlain(t *testing.T) {
	label := strings.Repeat("a", MaxLabel)
	for raw, plain := range map[string]bool{
		"jane@example.com": true, "a.b+c-d_e=f@x-y.9": true, "a@b": true, "a@_x": true,
		strings.Repeat("a", MaxLocal) + "@" + label + "." + label: true,
		strings.Repeat("a", MaxLocal+1) + "@x":                    false,
		"a@" + label + "a":                                        false,
		"a@" + strings.Repeat(label+".", 4) + "a":                 false,
		"": false, "@": false, "a": false, "a@": false, "@x": false, ".a@x": false, "a.@x": false, "a..b@x": false,
		"A@x": false, "a@X": false, "a@x.": false, "a@-x": false, "a@x-": false, "a@x..y": false, "a@xn--a": false,
		"a@b@c": false, "a b@c": false, "ü@x": false, "a@ü": false, "a@[x]": false, "<a@x>": false, "a@x\n": false,
	} {
		if got := ParseInternal(raw).IsPlain(); got != plain {
			t.Errorf("%.40q: %t, want %t", raw, got, plain)
		}
		holdsPlain(t, raw)
	}
	base, _, ok := ParseInternal("a+b@x.org").SplitExtension("+")
	if !ok || base.IsPlain() || base.Key() != "a@x.org" {
		t.Errorf("%+v: its Raw is not its key", base)
	}
}

func TestFoldKeyShortWay(t *testing.T) {
	for _, key := range []string{
		"", "a", "@x", "a@", "ab.cd.ef@gh.ij.kl", "ab.cd.ef@gh.ij.kL", "@[", "[A@x", "a@[x]", "a@[1.2.3.4]", "a@x.", "x.", "]", "a\x7f@\x00", "seven77Z", "eight888é", "a@[x",
	} {
		if got, want := FoldKey(key), foldKey(key); got != want {
			t.Errorf("FoldKey(%q) = %q, want %q", key, got, want)
		}
		if isLower(key) != (isASCII(key) && key == lower(key)) {
			t.Errorf("isLower(%q) = %t", key, isLower(key))
		}
	}
}

func BenchmarkParseInternal(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if a := ParseInternal("some.user+tag@mail.example.com"); a.Key() == "" {
			b.Fatal(a)
		}
	}
}
