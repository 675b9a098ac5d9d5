package mailaddr

import "strings"

// QuoteEnd returns the length of the quoted string (RFC 5322 section 3.2.4) at
// the start of s, with both quotes, or -1 if it has no end. s must not be
// empty.
func QuoteEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// CommentEnd is QuoteEnd for a comment (section 3.2.2). Comments may be nested.
func CommentEnd(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// Unquote returns the content of the quoted string at the start of s, without
// quotes and backslashes. It also returns the length that QuoteEnd returns.
func Unquote(s string) (text string, length int) {
	end := QuoteEnd(s)
	if end < 0 {
		return "", end
	}
	text = s[1 : end-1]
	if strings.IndexByte(text, '\\') >= 0 {
		text = unescape(text)
	}
	return text, end
}
