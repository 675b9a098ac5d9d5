package author

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// MaxShown bounds the addresses that Shown returns.
const MaxShown = 50

// Shown returns every text of a field that a person or a careless reader could take
// for an address, each once: the addresses themselves, and those in display names,
// comments and decoded words. Look-alikes of "@" and ".", characters that are not
// shown, and space around an "@" are read as people read them. more reports that
// there are others: more than MaxShown, or in what lies beyond MaxField.
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
			case len(all) == MaxShown:
				return all, true
			default:
				seen[address] = true
				all = append(all, address)
			}
		}
	}
	return all, more
}

// IsPlain reports whether a field of this text shows no address but its own, n of
// them: a quick answer for nearly all mail.
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
// comments. Some readers do not expect them in a display name, and take a quoted
// string beside them for an address.
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

// shownTexts returns the readings of a field: as written, and with quotes,
// encoded-words and comments taken away.
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

// plainText returns a text in the form in which a reader compares: look-alikes are
// the characters that they look like, what is not shown is gone, and what cannot be
// in an address is a space.
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
	case r == '\u3002': // the full stop of East Asia, which domains know too
		return '.'
	case !unicode.In(r, unicode.L, unicode.M, unicode.N):
		return ' '
	}
	return r
}

// addressAround returns the address around the "@" at i, "" if there is none. Its
// domain has two labels at least: "Alice @ work" is no address.
func addressAround(text string, i int) string {
	before, after := strings.TrimRight(text[:i], " "), strings.TrimLeft(text[i+1:], " ")
	local := before[localStart(before):]
	domain, err := mailaddr.ParseDomain(strings.Trim(after[:domainEnd(after)], ".-"))
	if local == "" || err != nil || strings.IndexByte(domain, '.') < 0 {
		return ""
	}
	return local + "@" + domain
}

// localStart returns where the word begins that a text ends with; quotes of people
// are no part of it.
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

// isWordOctet reports whether b may be in a local part that needs no quotes.
func isWordOctet(b byte) bool {
	return isAlpha(b) || isDigit(b) || b >= 0x80 || b != 0 && strings.IndexByte("!#$%&'*+-/=?^_`{|}~.", b) >= 0
}
