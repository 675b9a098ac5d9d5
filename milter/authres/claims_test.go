package authres

import (
	"strings"
	"testing"
)

func TestClaims(t *testing.T) {
	const ours = "mx.example.org"
	tests := []struct {
		value string
		want  bool
		why   string
	}{
		{"mx.example.org; none", true, "plain"},
		{"mx.example.org", true, "nothing but the name"},
		{" mx.example.org;dkim=pass", true, "leading blank, none behind"},
		{"MX.Example.ORG; dkim=pass", true, "letter case"},
		{"mx.example.org.; dkim=pass", true, "trailing dot"},
		{"mx.example.org 1; dkim=pass", true, "version"},
		{"1; dkim=pass", true, "a version without a name"},
		{" (x) 1 ; dkim=pass", true, "a version behind a comment"},
		{"192.0.2.1; dkim=pass", false, "foreign, an address"},
		{"mx.example.org 99 ; dkim=pass", true, "another version"},
		{"mx.example.org/1; dkim=pass", true, "version as for a method"},
		{"\n\tmx.example.org\n\t;\n\tdkim=pass", true, "folded"},
		{"\r\n mx.example.org\r\n 1;", true, "folded with CRLF"},
		{"(hi) mx.example.org; dkim=pass", true, "comment before"},
		{"(hi;) mx.example.org; dkim=pass", true, "comment with a semicolon before"},
		{"((a) b\\)) mx.example.org (c); dkim=pass", true, "nested and escaped comments"},
		{"mx.example.org(x); dkim=pass", true, "comment directly behind"},
		{"mx.exa(x)mple.org; dkim=pass", true, "comment inside"},
		{`"mx.example.org"; dkim=pass`, true, "quoted"},
		{`"mx.exam\ple.org" 1; dkim=pass`, true, "quoted with an escape"},
		{`mx.exam\ple.org; dkim=pass`, true, "escape outside quotes"},
		{`"mx".example."org"; dkim=pass`, true, "quoted in parts"},
		{`" mx.example.org"; dkim=pass`, true, "blank inside the quotes"},
		{"mx . example . org; dkim=pass", true, "blanks inside"},
		{"mx.example.org\x00; dkim=pass", true, "a NUL behind"},
		{"m\x00x.example.org; dkim=pass", true, "a NUL inside"},
		{"\u00a0mx.example.org\u00a0; dkim=pass", true, "no-break spaces"},
		{"mx.exam\u200bple.org; dkim=pass", true, "a zero-width space inside"},
		{"mx.exam\u00adple.org; dkim=pass", true, "a soft hyphen inside"},
		{"mx\u3002example\u3002org; dkim=pass", true, "ideographic full stops"},
		{"\uff4d\uff58.example.org; dkim=pass", true, "full-width letters"},
		{"\xffmx.example.org; dkim=pass", true, "a byte that is not UTF-8"},
		{"=?utf-8?q?mx.example.org?=; dkim=pass", true, "encoded-word"},
		{"=?utf-7?b?bXguZXhhbXBsZS5vcmc=?=; dkim=pass", true, "encoded-word in another charset"},
		{"evil.example mx.example.org; dkim=pass", true, "two names"},
		{"<mx.example.org>; dkim=pass", true, "in angle brackets"},
		{"mx.example.org, evil.example; dkim=pass", true, "a list"},
		{"mx.example.org=x; dkim=pass", true, "junk behind"},
		{"(mx.example.org; dkim=pass", true, "comment without end"},
		{`"mx.example.org; dkim=pass`, true, "string without end"},
		{"evil.example (; dkim=pass (mx.\u200bexample.org", true, "no end, hidden characters"},
		{"(mx.example.org; ) evil.example; dkim=pass", true, "a reader without comments sees our name first"},
		{"; dkim=pass", true, "no name at all"},
		{"", true, "empty"},
		{"(only a comment)", true, "nothing but a comment"},

		{"mx.google.com; dkim=pass header.d=example.org", false, "foreign"},
		{"mx.google.com 1; dkim=pass", false, "foreign with version"},
		{"example.org; dkim=pass", false, "the domain above"},
		{"a.mx.example.org; dkim=pass", false, "a name below"},
		{"xmx.example.org; dkim=pass", false, "a longer name"},
		{"mx.example.orgs; dkim=pass", false, "a longer top label"},
		{"mx.example.org.evil.example; dkim=pass", false, "ours as a prefix"},
		{"mx-example.org; dkim=pass", false, "a hyphen for a dot"},
		{"mx.google.com; spf=pass smtp.helo=mx.example.org", false, "our name among the properties"},
		{"mx.google.com (relayed by mx.example.org); spf=pass", false, "our name in a comment"},
		{`mx.google.com; dkim=pass reason="x; mx.example.org"`, false, "our name in a string behind"},
		{"mx.google.com; x=\"", false, "no end, but behind the head"},
		{"evil.example (; dkim=pass", false, "comment without end, our name nowhere"},
		{`"evil.example; dkim=pass`, false, "string without end, our name nowhere"},
		{"spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=example.com; dkim=none", true, "a big host's fields without any name"},
		{"dkim=pass header.d=example.com", true, "a result in the place of the name"},
		{"(mx) dmarc = pass; spf=pass", true, "the same behind a comment"},
		{"; dkim=pass", true, "an empty name"},
		{"mx.google.com", false, "a foreign name alone"},
		{"b\u00fccher.example; dkim=pass", false, "a foreign U-label"},
	}
	for _, tt := range tests {
		if got := Claims(tt.value, ours); got != tt.want {
			t.Errorf("%s: %q: %v", tt.why, tt.value, got)
		}
	}
}

func TestClaimsULabel(t *testing.T) {
	for _, ours := range []string{"xn--bcher-kva.example", "b\u00fccher.example", "B\u00dcCHER.example."} {
		for _, value := range []string{"b\u00fccher.example; dkim=pass", "XN--BCHER-KVA.example 1;", "(x) B\u00dccher.example;"} {
			if !Claims(value, ours) {
				t.Errorf("%q is not seen as %q", value, ours)
			}
		}
		if Claims("bucher.example; dkim=pass", ours) {
			t.Error("a name without the umlaut")
		}
	}
	if !Claims("mx.google.com; none", " ") {
		t.Error("without a name of ours no field is foreign")
	}
}

// FuzzClaims checks that every field that a strict reader takes for ours is found,
// however it is hidden, and that a head of ours counts as ours whatever follows.
func FuzzClaims(f *testing.F) {
	f.Add("mx.example.org; dkim=pass", "x")
	f.Add("(a(b)\\)) \"mx.example\\.org\" 1", "; none")
	f.Add("=?utf-8?q?mx?=", "\xff\u200b\"(")
	f.Fuzz(func(t *testing.T, value, other string) {
		const ours = "mx.example.org"
		if id, _, err := parseField(value); err == nil && strings.EqualFold(id, ours) && !Claims(value, ours) {
			t.Fatalf("%q is ours", value)
		}
		if !Claims(ours+";"+value, ours) || !Claims(ours+" ("+strings.NewReplacer("(", "", ")", "", "\\", "").Replace(other)+") ;"+value, ours) {
			t.Fatalf("our head is not seen before %q", value)
		}
		hidden := strings.Join(strings.Split(ours, ""), "\u200b\x00")
		if !Claims(hidden+";"+value, ours) {
			t.Fatalf("%q is ours", hidden)
		}
		if own := Format(ours, SPF{Pass, value, other, Text{value, other}}); !Claims(own, ours) {
			t.Fatalf("our own field %q is not seen", own)
		}
		if foreign := Format("mx.foreign.example", SPF{Pass, value, other, Text{value, other}}); Claims(foreign, ours) {
			t.Fatalf("%q is foreign", foreign)
		}
	})
}

// BenchmarkClaims shows that the cost grows with the length and no faster.
func BenchmarkClaims(b *testing.B) {
	for _, n := range []int{1 << 10, 8 << 10, 100 << 10} {
		for name, unit := range map[string]string{"comments": "()", "quotes": `""`, "words": "a ", "foreign": "\u00fc.", "open": "("} {
			value := strings.Repeat(unit, n/len(unit))
			b.Run(name+"/"+map[int]string{1 << 10: "1k", 8 << 10: "8k", 100 << 10: "100k"}[n], func(b *testing.B) {
				b.SetBytes(int64(n))
				for b.Loop() {
					Claims(value, "mx.example.org")
				}
			})
		}
	}
}
