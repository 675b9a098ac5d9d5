package glob

import "testing"

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "a", true},
		{"a", "A", true}, {"A*", "abc", true}, {"*C", "abc", true}, {"a*c", "abc", true}, {"a*c", "ac", true},
		{"a*a", "a", false}, {"ab*ba", "aba", false}, {"a*b*c", "a-b-c", true}, {"a*b*c", "acb", false},
		{"a**c", "abc", true}, {"*@x.example", "ann@x.example", true}, {"*@x.example", "ann@y.example", false},
	} {
		if got := Match(tt.pattern, tt.text); got != tt.want {
			t.Errorf("%q on %q: %v", tt.pattern, tt.text, got)
		}
	}
}
