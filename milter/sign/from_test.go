package sign

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/record"
)

func TestReadAuthor(t *testing.T) {
	tests := []struct {
		name, value, local string
		reason             record.Reason // "": signed for example.com
	}{
		{"bare", " a@example.com", "a", ""},
		{"angle", " Alice <a@Example.COM>", "a", ""},
		{"folded", " Alice\r\n <a@example.com>", "a", ""},
		{"folded with LF", " Alice\n\t<a@example.com>", "a", ""},
		{"space within brackets", " <a@example.com >", "a", ""},
		{"comment", " a@example.com (x@evil.example)", "a", ""},
		{"nested comment", " (a (b\\) <x@evil.example>) c) a@example.com", "a", ""},
		{"quoted display name with an address", ` "x@evil.example, <y@evil.example>" <a@example.com>`, "a", ""},
		{"dots and brackets in the display name", " A. [ops] <a@example.com>", "a", ""},
		{"8-bit display name", " \xe4 <a@example.com>", "a", ""},
		{"quoted local part", ` "a@b"@example.com`, `"a@b"`, ""},
		{"trailing dot", " a@example.com.", "a", ""},
		{"two of one domain", " a@example.com, B <b@EXAMPLE.com>", "a", ""},
		{"two domains", " a@example.com, b@example.org", "", record.SignSeveralDomains},
		{"empty", "", "", record.SignBadFrom},
		{"only a comment", " (a@example.com)", "", record.SignBadFrom},
		{"no domain", " alice", "", record.SignBadFrom},
		{"empty domain", " a@", "", record.SignBadFrom},
		{"empty group", " undisclosed:;", "", record.SignBadFrom},
		{"route", " <@evil.example:a@example.com>", "", record.SignSeveralDomains},
		{"two at signs", " a@evil.example@example.com", "", record.SignSeveralDomains},
		{"literal", " a@[192.0.2.1]", "", record.SignBadFrom},
		{"NUL", " a@exam\x00ple.com", "", record.SignSeveralDomains},
		{"too long", strings.Repeat(" ", author.MaxField+1) + "a@example.com", "", record.SignBadFrom},
		{"no field of UTF-8", " a@\xff.example, b@example.com", "", record.SignBadFrom},

		// Not what RFC 5322 allows, but there is no second domain to see.
		{"comma in the display name", " Doe, Alice <a@example.com>", "a", ""},
		{"comma in an encoded-word", " =?utf-8?Q?Doe,_Alice?= <a@example.com>", "a", ""},
		{"empty element", " a@example.com,", "a", ""},
		{"empty element first", " , Alice <a@example.com>", "a", ""},
		{"semicolon behind the address", " Alice <a@example.com>;", "a", ""},
		{"semicolon between addresses", " a@example.com; b@example.com", "a", ""},
		{"semicolon in the display name", " Sales; Berlin <a@example.com>", "a", ""},
		{"semicolon in quotes", ` "Team; all" <a@example.com>`, "a", ""},
		{"colon in the display name", " Re: Alice <a@example.com>", "a", ""},
		{"group", " Team: a@example.com;", "a", ""},
		{"group of two with brackets", " Team: <a@example.com>, <b@example.com>;", "a", ""},
		{"two brackets", " <a@example.com> <b@example.com>", "a", ""},
		{"bracket left open", " Alice <a@example.com", "a", ""},
		{"bracket not opened", " a@example.com>", "", ""},
		{"bracket twice", " <<a@example.com>>", "", ""},
		{"comma within brackets", " <a@example.com, b@example.com>", "", ""},
		{"string left open", ` "Alice <a@example.com>`, "a", ""},
		{"comment left open", " Alice (ops <a@example.com>", "a", ""},
		{"no local part", " @example.com", "", ""},
		{"mailto", " <mailto:a@example.com>", "", ""},
		{"space in the local part", " alice doe@example.com", "", ""},
		{"two dots in the local part", " a..b@example.com", "a..b", ""},
		{"control character in the display name", " Al\x07ice <a@example.com>", "a", ""},
		{"its own address in a stray quote", ` a@example.com" <a@example.com>`, "a", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := author.Mailbox{Local: tt.local, Domain: "example.com"}
			if tt.reason != "" {
				want = author.Mailbox{}
			}
			got, reason := readAuthor([]Field{{Name: "From", Value: tt.value}})
			if reason != tt.reason || got != want {
				t.Errorf("got %+v, %q; want %+v, %q", got, reason, want, tt.reason)
			}
		})
	}
}

// The same forms with a second domain are not signed.
func TestReadAuthorSeesTheSecondDomain(t *testing.T) {
	for _, value := range []string{
		" x@evil.example, Alice <a@example.com>", " =?utf-8?Q?x@evil.example,?= x@evil.example <a@example.com>", " a@example.com, <@evil.example>",
		" Alice <a@example.com>; x@evil.example", " x@evil.example; Alice <a@example.com>", " Team: a@example.com, x@evil.example;",
		" <x@evil.example> <a@example.com>", " x@evil.example> <a@example.com>", " <<x@evil.example> a@example.com>",
		" <a@example.com, x@evil.example>", ` "x@evil.example <a@example.com>`, " (x@evil.example <a@example.com>", " Alice <a@example.com>;x@evil.example(",
		" a@example.com;\r\n x@evil.example", " a@example.com:x@evil.example", ` "x@evil.example" <a@example.com>;`,
		" <mailto:x@evil.example:a@example.com>", " =?utf-8?q?x=40evil.example?=@x <a@example.com>",
	} {
		if got, reason := readAuthor([]Field{{Name: "From", Value: value}}); reason != record.SignSeveralDomains {
			t.Errorf("%q: %+v, %q", value, got, reason)
		}
	}
}

// Mail is not signed if some reader could see another domain in From.
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
			if reason != tt.reason || (a.Domain == "example.com") != (tt.reason == "") {
				t.Errorf("%+v, %q; want %q", a, reason, tt.reason)
			}
		})
	}
	hidden := []Field{{Name: "From", Value: " a@example.com"}, {Name: "F\x7from", Value: " x@other.example"}}
	if _, reason := readAuthor(hidden); reason != record.SignSeveralDomains {
		t.Errorf("a field with a control character in its name: %q", reason)
	}
}
