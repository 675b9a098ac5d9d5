package sign

import (
	"errors"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/record"
)

func TestParseFrom(t *testing.T) {
	tests := []struct {
		name, value, local, domain string
		err                        error
	}{
		{"bare", " a@example.com", "a", "example.com", nil},
		{"angle", " Alice <a@Example.COM>", "a", "example.com", nil},
		{"folded", " Alice\r\n <a@example.com>", "a", "example.com", nil},
		{"folded with LF", " Alice\n\t<a@example.com>", "a", "example.com", nil},
		{"space within brackets", " <a@example.com >", "a", "example.com", nil},
		{"comment", " a@example.com (x@evil.example)", "a", "example.com", nil},
		{"nested comment", " (a (b\\) <x@evil.example>) c) a@example.com", "a", "example.com", nil},
		{"quoted display name with an address", ` "x@evil.example, <y@evil.example>" <a@example.com>`, "a", "example.com", nil},
		{"address as display name", " x@evil.example <a@example.com>", "a", "example.com", nil},
		{"dots and brackets in the display name", " A. [ops] <a@example.com>", "a", "example.com", nil},
		{"8-bit display name", " \xe4 <a@example.com>", "a", "example.com", nil},
		{"quoted local part", ` "a@b"@example.com`, `"a@b"`, "example.com", nil},
		{"U-label", " a@b\u00fccher.example", "a", "xn--bcher-kva.example", nil},
		{"trailing dot", " a@example.com.", "a", "example.com", nil},
		{"two of one domain", " a@example.com, B <b@EXAMPLE.com>", "a", "example.com", nil},
		{"two domains", " a@example.com, b@example.org", "", "", errFromDomains},
		{"empty", "", "", "", errFromSyntax},
		{"only a comment", " (a@example.com)", "", "", errFromSyntax},
		{"no domain", " alice", "", "", errFromSyntax},
		{"empty domain", " a@", "", "", errFromSyntax},
		{"no local part", " @example.com", "", "", errFromSyntax},
		{"group", " Team: a@example.com;", "", "", errFromSyntax},
		{"group with brackets", " Team: <a@example.com>;", "", "", errFromSyntax},
		{"group of two", " Team: <a@example.com>, <b@example.com>;", "", "", errFromSyntax},
		{"semicolon in quotes", ` "Team; all" <a@example.com>`, "a", "example.com", nil},
		{"empty group", " undisclosed:;", "", "", errFromSyntax},
		{"route", " <@evil.example:a@example.com>", "", "", errFromSyntax},
		{"two brackets", " <a@example.com> <b@example.com>", "", "", errFromSyntax},
		{"bracket left open", " <a@example.com", "", "", errFromSyntax},
		{"bracket not opened", " a@example.com>", "", "", errFromSyntax},
		{"comma within brackets", " <a@example.com, b@example.com>", "", "", errFromSyntax},
		{"two at signs", " a@evil.example@example.com", "", "", errFromSyntax},
		{"literal", " a@[192.0.2.1]", "", "", errFromSyntax},
		{"string left open", ` "a <a@example.com>`, "", "", errFromSyntax},
		{"NUL", " a@exam\x00ple.com", "", "", errFromSyntax},
		{"empty element", " a@example.com,", "", "", errFromSyntax},
		{"too long", strings.Repeat(" ", maxFrom+1) + "a@example.com", "", "", errFromSyntax},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseFrom(tt.value)
			if !errors.Is(err, tt.err) || got != (author{tt.local, tt.domain}) {
				t.Errorf("got %+v, %v; want %s@%s, %v", got, err, tt.local, tt.domain, tt.err)
			}
		})
	}
}

// Nobody vouches for a name that some reader could see in From.
func TestOtherReaders(t *testing.T) {
	tests := []struct {
		name, value string
		reason      record.Reason
	}{
		{"plain", " Alice <a@example.com>", ""},
		{"its own address as display name", " a@example.com <a@Example.com>", ""},
		{"its own address behind the brackets", " <a@example.com> a@example.com", ""},
		{"a word with an at sign", " Alice @ work <a@example.com>", ""},
		{"a quoted address as display name", ` "x@other.example" <a@example.com>`, ""},
		{"a comment", " a@example.com (x@other.example)", ""},
		{"8-bit display name", " \xe4 <a@example.com>", ""},
		{"another address as display name", " x@other.example <a@example.com>", record.SignSeveralDomains},
		{"one of a subdomain", " x@sub.example.com <a@example.com>", record.SignSeveralDomains},
		{"another address behind the brackets", " <a@example.com>x@other.example", record.SignSeveralDomains},
		{"a display name that decodes to brackets", " =?utf-8?q?=3Cx=40other.example=3E?=@x <a@example.com>", record.SignSeveralDomains},
		{"a thousand addresses", strings.Repeat(" a@example.com,", 1000) + "a@example.com", record.SignSeveralDomains},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, reason := readAuthor([]Field{{Name: "From", Value: tt.value}})
			if reason != tt.reason || (a.domain == "example.com") != (tt.reason == "") {
				t.Errorf("%+v, %q; want %q", a, reason, tt.reason)
			}
		})
	}
	hidden := []Field{{Name: "From", Value: " a@example.com"}, {Name: "F\x7from", Value: " x@other.example"}}
	if _, reason := readAuthor(hidden); reason != record.SignSeveralDomains {
		t.Errorf("a field with a control character in its name: %q", reason)
	}
}

func FuzzParseFrom(f *testing.F) {
	for _, seed := range []string{` "a\"" (b(\)) <a@b.c>, d@e`, "<<>>", "((((", `"\`, ":;@,<>", " a@b.c,\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		a, err := parseFrom(value)
		if (err == nil) != (a.domain != "" && a.local != "") {
			t.Fatalf("%q: %+v with error %v", value, a, err)
		}
		if err == nil && !strings.Contains(value, "@") {
			t.Fatalf("%q: a domain out of nothing: %+v", value, a)
		}
	})
}
