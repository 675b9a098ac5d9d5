package author

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
)

// only returns a header with one field and another one that is not parsed.
func only(name, value string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		_ = yield("To", "x@unasked.example") && yield(name, value)
	}
}

// fields has every kind of field. The golden cases of package dmarc have the
// results for DMARC.
var fields = []struct {
	name, value string
	domains     string
	mailboxes   string // display names and addresses
	defect      Defect
	malformed   bool
}{
	{"plain", " Alice <a@example.com>", "example.com", "Alice <a@example.com>", "", false},
	{"bare", " a@Example.COM (Alice)", "example.com", " <a@example.com>", "", false},
	{"quoted name", ` "Doe, \"Al\" Alice" <a@example.com>`, "example.com", `Doe, "Al" Alice <a@example.com>`, "", false},
	{"encoded name", " =?utf-8?q?D=C3=B6e=2C?= =?utf-8?b?IEFsaWNl?= <a@example.com>", "example.com", "Döe, Alice <a@example.com>", "", false},
	{"encoded name in quotes", ` "=?iso-8859-1?q?D=F6e?=" <a@example.com>`, "example.com", "Döe <a@example.com>", "", false},
	{"name of an unknown charset", " =?x-none?q?Alice?= <a@example.com>", "example.com", "Alice <a@example.com>", "", false},
	{"name that hides an address", " =?utf-8?q?ceo=40victim.example?= <a@example.com>", "example.com", "ceo@victim.example <a@example.com>", "", false},
	{"address as name", " ceo@victim.example <a@example.com>", "victim.example example.com", "ceo@victim.example <a@example.com>", "", true},
	{"list", " Alice <a@example.com>, b@example.org", "example.com example.org", "Alice <a@example.com>| <b@example.org>", "", false},
	{"group", " Team: a@example.com, Bob <b@example.com>;", "example.com", " <a@example.com>|Bob <b@example.com>", "", false},
	{"comma in the name", " Doe, Alice <a@example.com>", "example.com", "Alice <a@example.com>", "", false},
	{"stray semicolon", " Alice <a@example.com>;", "example.com", "Alice <a@example.com>", "", true},
	{"stray semicolon in the name", " Sales; Berlin <a@example.com>", "example.com", "Berlin <a@example.com>", "", true},
	{"left open", ` "Alice <a@example.com`, "example.com", `"Alice <a@example.com>`, "", true},
	{"two at signs", " a@b.example@example.com", "example.com b.example", "", "", true},
	{"quoted local part", ` "a b"@example.com`, "example.com", ` <"a b"@example.com>`, "", false},
	{"control character cuts the domain", " a@exam\x00ple.com", "exam example.com", "", "", true},
	{"address after brackets", " <a@example.com> b@example.org", "example.com example.org", " <a@example.com>", "", true},
	{"no domain", " undisclosed:;", "", "", NoDomain, false},
	{"domain that is none", " a@", "", "", Unusable, true},
	{"nothing", " (a@example.com)", "", "", Missing, false},
	{"too many", " a@a.example,a@b.example,a@c.example,a@d.example,a@e.example,a@f.example", "a.example b.example c.example d.example e.example",
		" <a@a.example>| <a@b.example>| <a@c.example>| <a@d.example>| <a@e.example>| <a@f.example>", TooManyDomains, true},
	{"too long", strings.Repeat("x", MaxField) + " <a@example.com>", "", "", TooManyDomains, true},
}

func TestParse(t *testing.T) {
	for _, tt := range fields {
		t.Run(tt.name, func(t *testing.T) {
			a := ParseFrom(only("From", tt.value))
			if got := strings.Join(a.Domains, " "); got != tt.domains || a.Defect != tt.defect || a.Malformed != tt.malformed {
				t.Errorf("domains %q, defect %q, malformed %v; want %q, %q, %v", got, a.Defect, a.Malformed, tt.domains, tt.defect, tt.malformed)
			}
			var mailboxes []string
			for _, m := range a.Mailboxes {
				mailboxes = append(mailboxes, fmt.Sprintf("%s <%s>", m.DisplayName(), m.Address()))
			}
			if got := strings.Join(mailboxes, "|"); got != tt.mailboxes {
				t.Errorf("mailboxes %q, want %q", got, tt.mailboxes)
			}
		})
	}
}

// Sender and Resent-From are parsed like From, each separately.
func TestParseOtherFields(t *testing.T) {
	header := func(yield func(string, string) bool) {
		_ = yield("From", " a@one.example") && yield("SENDER", " b@two.example") && yield("Resent-From\t", " c@three.example") &&
			yield("resent-\x00from", " d@four.example") && yield("Sender-Name", " e@five.example")
	}
	for field, want := range map[string][]string{
		"from": {"one.example"}, "sender": {"two.example"}, "resent-from": {"three.example", "four.example"},
	} {
		a := Parse(field, header)
		if !slices.Equal(a.Domains, want) || a.Fields != len(want) || len(a.Mailboxes) != len(want) {
			t.Errorf("%s: %+v", field, a)
		}
	}
}

func TestBounds(t *testing.T) {
	a := ParseFrom(only("From", strings.Repeat("a@example.com,", MaxAddresses)+"b@example.com"))
	if a.Addresses != MaxAddresses || len(a.Mailboxes) != MaxAddresses || a.Defect != TooManyDomains {
		t.Errorf("%d addresses, %d mailboxes, %q", a.Addresses, len(a.Mailboxes), a.Defect)
	}
}
