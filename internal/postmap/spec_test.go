package postmap

import (
	"strings"
	"testing"
)

func TestSpecInner(t *testing.T) {
	for text, want := range map[string]string{
		"{a}": "a", "{ a b\t}": "a b", "{}": "", "{{a}}": "{a}", "{a{b}c}": "a{b}c", "{,a,}": ",a,",
	} {
		if got, err := specInner(text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"": "no \"{\"", "a": "no \"{\"", "{a": "missing", "{{a}": "missing", "{a}b": `text "b" after`, "{a}}": `text "}" after`,
		"{" + strings.Repeat("a", MaxSpec) + "}": "longer than",
	} {
		if got, err := specInner(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %q, %v", text, got, err)
		}
	}
}

func TestSpecFields(t *testing.T) {
	for text, want := range map[string]string{
		"": "", " , ": "", "a": "a", "a b,c\t,\nd": "a|b|c|d", "{a b},c": "{a b}|c", "a={b, c} d": "a={b, c}|d", "{a}{b}": "{a}{b}",
	} {
		got, err := specFields(text)
		if err != nil || strings.Join(got, "|") != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"}", "a}", "{a", "{a} }", "a {b{c}"} {
		if got, err := specFields(text); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
}
