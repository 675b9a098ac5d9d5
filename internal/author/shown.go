package author

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// maxShown is how many addresses Shown returns at most.
const maxShown = 50

// Shown returns every text in a field that a person or a careless reader could
// take for an address, each once: the addresses themselves, and those in
// display names, comments and decoded words. Look-alikes of "@" and ".",
// invisible characters, and space around an "@" are read as people read them.
// more reports whether there are others, beyond maxShown or MaxField.
func Shown(value string) (all []string, more bool) {
	if len(value) > MaxField {
		value, more = value[:MaxField], true
	}
	seen := make(map[string]bool)
	for _, text := range shownTexts(value) {
		for i := range len(text) {
			if text[i] != '@' {
				continue
			}
			address := addressAround(text, i)
			switch {
			case address == "" || seen[address]:
			case len(all) == maxShown:
				return all, true
			default:
				seen[address] = true
				all = append(all, address)
			}
		}
	}
	return all, more
}

// IsPlain reports whether a field shows no addresses except its own, which are
// n. It is fast and true for nearly all mail.
func IsPlain(value string, n int) bool {
	for i := range len(value) {
		switch {
		case value[i] >= 0x80, value[i] == '=' && i+1 < len(value) && value[i+1] == '?':
			return false
		case value[i] == '@':
			n--
		}
	}
	return n == 0
}

// HasBrackets reports whether a field has square brackets outside of quotes and
// comments. Some readers do not expect them in a display name, and take a
// quoted string next to them for an address.
func HasBrackets(value string) bool {
	for i := 0; i < len(value); i++ {
		end := 0
		switch value[i] {
		case '[', ']':
			return true
		case '"':
			end = mailaddr.QuoteEnd(value[i:])
		case '(':
			end = mailaddr.CommentEnd(value[i:])
		}
		if end < 0 {
			return strings.ContainsAny(value[i:], "[]")
		}
		i += max(end, 1) - 1
	}
	return false
}

// shownTexts returns the readings of a field: as written, and without quotes,
// encoded-words and comments.
func shownTexts(value string) []string {
	texts := []string{value, decodeName(value)}
	if decoded, ok := decodeWords(value); ok {
		texts = append(texts, decoded)
	}
	if strings.IndexByte(value, '(') >= 0 {
		texts = append(texts, dropComments(value))
	}
	for i, text := range texts {
		texts[i] = plainText(text)
	}
	return texts
}

// plainText returns a text as a reader sees it. Look-alikes become the
// characters that they look like, invisible characters are removed, and
// characters that cannot be in an address become a space.
func plainText(text string) string {
	unusual := func(r rune) bool { return r >= 0x80 || r < ' ' || r == 0x7f }
	if strings.IndexFunc(text, unusual) < 0 {
		return text
	}
	return strings.Map(plainRune, norm.NFKC.String(text))
}

func plainRune(r rune) rune {
	switch {
	case r == '\t' || r == '\r' || r == '\n':
		return ' '
	case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point):
		return -1
	case r < 0x80:
		return r
	case r == '\u3002': // the full stop of East Asia, which is also used in domains
		return '.'
	case !unicode.In(r, unicode.L, unicode.M, unicode.N):
		return ' '
	}
	return r
}

// addressAround returns the address around the "@" at i, or "". Its domain must
// have at least two labels: "Alice @ work" is not an address.
func addressAround(text string, i int) string {
	before, after := strings.TrimRight(text[:i], " "), strings.TrimLeft(text[i+1:], " ")
	local := before[localStart(before):]
	domain, err := mailaddr.ParseDomain(strings.Trim(after[:domainEnd(after)], ".-"))
	if local == "" || err != nil || strings.IndexByte(domain, '.') < 0 {
		return ""
	}
	return local + "@" + domain
}

// localStart returns the start of the last word of a text. Quotation marks are
// not part of it.
func localStart(text string) int {
	start := len(text)
	for start > 0 && isWordOctet(text[start-1]) {
		start--
	}
	for start < len(text) && strings.IndexByte(".'`", text[start]) >= 0 {
		start++
	}
	return start
}

// isWordOctet reports whether b may be in a local part without quotes.
func isWordOctet(b byte) bool {
	return isAlpha(b) || isDigit(b) || b >= 0x80 || b != 0 && strings.IndexByte("!#$%&'*+-/=?^_`{|}~.", b) >= 0
}
