package mailaddr

import "testing"

func TestEnds(t *testing.T) {
	for text, want := range map[string]int{
		`"a" b`: 3, `""`: 2, `"a\" b"c`: 7, `"a`: -1, `"`: -1, `"a\"`: -1, `"a\`: -1,
		`(a) b`: 3, `()`: 2, `(a(b)c)d`: 7, `(a\)b)c`: 6, `(a(b)`: -1, `(`: -1, `(\`: -1,
	} {
		end := QuoteEnd
		if text[0] == '(' {
			end = CommentEnd
		}
		if got := end(text); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}
