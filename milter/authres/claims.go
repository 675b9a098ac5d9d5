package authres

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Claims reports whether an Authentication-Results field with this value claims to be
// from authservID, or some reader might think so. Readers may follow RFC 8601 section
// 2.2; or not know comments, quotes, or where the head of a field ends; or decode
// encoded-words or U-labels first. A field whose head cannot be parsed counts as ours
// when our name is anywhere in it. A field without a head always counts as ours.
//
// Its cost is linear in len(value).
func Claims(value, authservID string) bool {
	want := canonical(squeeze(authservID))
	if want == "" {
		return true // without a name of ours, every field could be ours
	}
	head, ok := headOf(value)
	if !ok {
		return contains(value, want)
	}
	if strings.Trim(squeeze(head), "0123456789") == "" || strings.Contains(head, "=") {
		// There is no name, only a version, a result in its place, or an encoded
		// name. A reader that goes on takes the results for those of the nearest
		// server: ours.
		return true
	}
	return names(head, want) || names(firstWord(value), want)
}

// firstWord returns the authserv-id for a reader that knows neither quotes nor
// comments: the text before the first blank or ";".
func firstWord(value string) string {
	value = strings.TrimLeftFunc(value, isBlank)
	if end := strings.IndexFunc(value, func(r rune) bool { return r == ';' || isBlank(r) }); end >= 0 {
		return value[:end]
	}
	return value
}

// headOf returns the text before the first ";" outside comments and quotes:
// authserv-id and version, without comments, quotes and backslashes. ok is false when
// a comment or a quoted string does not end.
func headOf(value string) (head string, ok bool) {
	var b strings.Builder
	for len(value) > 0 {
		text, n := value[:1], 1
		switch value[0] {
		case ';':
			return b.String(), true
		case '(':
			text, n = "", mailaddr.CommentEnd(value)
		case '"':
			text, n = mailaddr.Unquote(value)
		}
		if n < 0 {
			return b.String(), false
		}
		b.WriteString(text)
		value = value[n:]
	}
	return b.String(), true
}

// names reports whether a head names want: as one of its words, or as a whole without
// its unprintable characters, with or without a version after it.
func names(head, want string) bool {
	for word := range strings.FieldsFuncSeq(head, isSeparator) {
		if canonical(word) == want {
			return true
		}
	}
	rest, ok := strings.CutPrefix(canonical(squeeze(head)), want)
	return ok && strings.Trim(rest, "./0123456789") == ""
}

// contains reports whether want may be anywhere in a value, after all characters that
// could hide it are removed.
func contains(value, want string) bool {
	if strings.Contains(value, "=?") || strings.ContainsFunc(value, isForeign) {
		return true
	}
	return strings.Contains(strings.ToLower(squeeze(value)), want)
}

// isForeign reports whether a character is outside ASCII; a reader might map it into
// ASCII.
func isForeign(r rune) bool { return r >= utf8.RuneSelf }

// squeeze drops white space, controls, bytes that are not UTF-8, and the
// characters of quoting.
func squeeze(s string) string {
	return strings.Map(func(r rune) rune {
		if isBlank(r) || r == utf8.RuneError || strings.ContainsRune(`"\()`, r) {
			return -1
		}
		return r
	}, s)
}

// isBlank reports whether a character is white space or a control character, also of
// Unicode, or is invisible, such as a soft hyphen or a zero-width space.
func isBlank(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
}

// isSeparator reports whether a character ends a word: it occurs in no host name.
func isSeparator(r rune) bool {
	switch {
	case r == utf8.RuneError:
		return true
	case isForeign(r):
		return isBlank(r)
	}
	return (r|0x20 < 'a' || r|0x20 > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
}

// maxULabels bounds the names that are converted. No name in U-labels is longer.
const maxULabels = 1024

// canonical returns a name in A-labels and lower case, without dots at its ends.
func canonical(name string) string {
	if len(name) <= maxULabels && strings.ContainsFunc(name, isForeign) {
		if ascii, err := idna.Lookup.ToASCII(name); err == nil {
			name = ascii
		}
	}
	return strings.Trim(strings.ToLower(name), ".")
}
