package author

import (
	"reflect"
	"strings"
	"testing"
)

func TestShown(t *testing.T) {
	for _, tt := range []struct{ name, value, want string }{
		{"own", "Alice <a@example.com>", "a@example.com"},
		{"no address in the name", `"Alice @ work" <a@example.com>`, "a@example.com"},
		{"a name on a network", `"Alice (@alice)" <a@example.com>`, "a@example.com"},
		{"name", "\"ceo@victim.example\" <a@example.com>", "ceo@victim.example a@example.com"},
		{"single quotes", "'ceo@victim.example' <a@example.com>", "ceo@victim.example a@example.com"},
		{"escaped", `"ceo\@victim\.example" <a@example.com>`, "a@example.com ceo@victim.example"},
		{"comment", "a@example.com (ceo@victim.example)", "a@example.com ceo@victim.example"},
		{"address around a comment", "x ceo@(x)victim.example <a@example.com>", "a@example.com ceo@victim.example"},
		{"space", `"ceo @ victim.example" <a@example.com>`, "ceo@victim.example a@example.com"},
		{"encoded-word", "=?utf-8?q?ceo=40victim.example?= <a@example.com>", "a@example.com ceo@victim.example"},
		{"two encoded-words", "=?utf-8?b?Y2VvQHZp?= =?utf-8?q?ctim.example?= <a@example.com>", "a@example.com ceo@victim.example"},
		{"quoted encoded-word", `"=?utf-8?q?ceo=40victim.example?=" <a@example.com>`, "a@example.com ceo@victim.example"},
		{"full width", "\"ceo\uff20victim\uff0eexample\" <a@example.com>", "ceo@victim.example a@example.com"},
		{"small at", "=?utf-8?q?ceo=EF=B9=ABvictim=E3=80=82example?= <a@example.com>", "a@example.com ceo@victim.example"},
		{"zero width", "\"ceo\u200b@vic\u00adtim.example\" <a@example.com>", "ceo@victim.example a@example.com"},
		{"typographic quotes", "\u201cceo@victim.example\u201d <a@example.com>", "ceo@victim.example a@example.com"},
		{"control characters", "\"ceo\x01@victim.example\" <a@example.com>", "ceo@victim.example a@example.com"},
		{"international domain", "\"ceo@b\u00fccher.example\" <a@example.com>", "ceo@xn--bcher-kva.example a@example.com"},
		{"nothing", "undisclosed:;", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all, more := Shown(tt.value)
			if got := strings.Join(all, " "); got != tt.want || more {
				t.Errorf("%q, more %v; want %q", got, more, tt.want)
			}
		})
	}
	many := strings.Repeat("x", MaxField)
	if _, more := Shown(many + "ceo@victim.example"); !more {
		t.Error("text beyond MaxField is not reported")
	}
	var b strings.Builder
	for i := range maxShown + 1 {
		b.WriteString(strings.Repeat("x", i+1) + "@example.com, ")
	}
	if all, more := Shown(b.String()); !more || len(all) != maxShown {
		t.Errorf("%d addresses, more %v", len(all), more)
	}
}

func TestIsPlain(t *testing.T) {
	for value, want := range map[string]bool{
		"Alice <a@example.com>":                     true,
		"a@example.com, b@example.com":              false,
		`"b@example.com" <a@example.com>`:           false,
		"=?utf-8?q?b=40example.com?= <a@x.example>": false,
		"\uff20 <a@example.com>":                    false,
	} {
		if got := IsPlain(value, 1); got != want {
			t.Errorf("IsPlain(%q) is %v", value, got)
		}
	}
}

func TestHasBrackets(t *testing.T) {
	for value, want := range map[string]bool{
		"[External] Alice <a@example.com>":        true,
		`"[External] Alice" <a@example.com> ([])`: false,
		`"Alice [<a@example.com>`:                 true,
		"Alice <a@example.com>":                   false,
	} {
		if got := HasBrackets(value); got != want {
			t.Errorf("HasBrackets(%q) is %v", value, got)
		}
	}
}

func TestUnclear(t *testing.T) {
	for value, want := range map[string]bool{
		"Alice <a@example.com>":                  false,
		"Doe, Alice <a@example.com>":             false,
		"Team: a@example.com;":                   false,
		"<>":                                     false,
		"a@example.com, b@[192.0.2.1]":           true,
		"a b@example.com":                        true,
		"<@x.example:b@example.com>":             true,
		"b@":                                     true,
		"=?utf-8?q?b?=@example.com":              true,
		"a@example.com, Bob <b\x01@example.com>": true,
		"b@home.example <a@example.com>":         false, // malformed
	} {
		if got := ParseFrom(only("From", value)).Unclear; got != want {
			t.Errorf("%q: unclear is %v", value, got)
		}
	}
}

// For any text, each shown text has the form of an address, and a plain field
// shows no other.
func FuzzShown(f *testing.F) {
	for _, tt := range fields {
		f.Add(tt.value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		all, _ := Shown(value)
		for _, address := range all {
			if at := strings.LastIndexByte(address, '@'); at < 1 || strings.IndexByte(address[at:], '.') < 0 {
				t.Errorf("%q shows %q", value, address)
			}
		}
		a := ParseFrom(only("From", value))
		if n := len(a.Mailboxes); len(value) <= MaxField && !a.Malformed && !a.Unclear && IsPlain(value, n) && len(all) > n {
			t.Errorf("%q is plain and shows %q", value, all)
		}
	})
}

// Both functions parse one field in the same way.
func TestParseField(t *testing.T) {
	for _, tt := range fields {
		one, all := ParseField(tt.value), ParseFrom(only("From", tt.value))
		if !reflect.DeepEqual(one, all) {
			t.Errorf("%q: %+v, %+v", tt.value, one, all)
		}
	}
}
