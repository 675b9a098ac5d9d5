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

func TestUnquote(t *testing.T) {
	tests := []struct {
		text, want string
		length     int
	}{
		{`"a b"c`, "a b", 5}, {`""`, "", 2}, {`"a\"b\\" x`, `a"b\`, 8}, {`"a`, "", -1}, {`"a\"`, "", -1},
	}
	for _, tt := range tests {
		if got, n := Unquote(tt.text); got != tt.want || n != tt.length {
			t.Errorf("%s: %q, %d; want %q, %d", tt.text, got, n, tt.want, tt.length)
		}
	}
}
