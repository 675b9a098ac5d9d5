package authres

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Claims reports whether an Authentication-Results field with this value
// claims to be from authservID, or might be taken for it: by a reader that
// follows RFC 8601 section 2.2, and by one that does not know comments, or
// quotes, or where a field's head ends, or that decodes encoded-words or
// U-labels first. A field whose head cannot be read counts as ours when our
// name is anywhere in it, and one without any head always does.
//
// Its cost is linear in len(value).
func Claims(value, authservID string) bool {
	want := canonical(squeeze(authservID))
	if want == "" {
		return true // no name of ours to tell others from
	}
	head, ok := headOf(value)
	if !ok {
		return contains(value, want)
	}
	if strings.Trim(squeeze(head), "0123456789") == "" || strings.Contains(head, "=") {
		// No name, but for a version, a result in its place, or an encoded one: whoever
		// reads on takes the results for those of the nearest server, which is us.
		return true
	}
	return names(head, want) || names(firstWord(value), want)
}

// firstWord is the authserv-id for a reader that knows neither quotes nor
// comments: what is before the first blank or ";".
func firstWord(value string) string {
	value = strings.TrimLeftFunc(value, isBlank)
	if end := strings.IndexFunc(value, func(r rune) bool { return r == ';' || isBlank(r) }); end >= 0 {
		return value[:end]
	}
	return value
}

// headOf returns what is before the first ";" outside comments and quotes:
// authserv-id and version, without comments, quotes and backslashes. ok is
// false when a comment or a quoted string does not end.
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

// names reports whether a head names want: as one of its words, whatever
// is around that, or when all that is not printable is left out, with or
// without a version behind it.
func names(head, want string) bool {
	for word := range strings.FieldsFuncSeq(head, isSeparator) {
		if canonical(word) == want {
			return true
		}
	}
	rest, ok := strings.CutPrefix(canonical(squeeze(head)), want)
	return ok && strings.Trim(rest, "./0123456789") == ""
}

// contains reports whether want may be anywhere in a value, all that could
// hide it being left out.
func contains(value, want string) bool {
	if strings.Contains(value, "=?") || strings.ContainsFunc(value, isForeign) {
		return true
	}
	return strings.Contains(strings.ToLower(squeeze(value)), want)
}

// isForeign is a character outside ASCII, which a reader might map into it.
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

// isBlank is white space or a control character, Unicode's included, and what
// shows nothing, such as a soft hyphen or a zero-width space.
func isBlank(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.Is(unicode.Cf, r)
}

// isSeparator ends a word: everything that no host name holds.
func isSeparator(r rune) bool {
	switch {
	case r == utf8.RuneError:
		return true
	case isForeign(r):
		return isBlank(r)
	}
	return (r|0x20 < 'a' || r|0x20 > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
}

// maxULabels bounds what is converted: no name in U-labels is longer.
const maxULabels = 1024

// canonical is a name in A-labels and lower case without dots at its ends.
func canonical(name string) string {
	if len(name) <= maxULabels && strings.ContainsFunc(name, isForeign) {
		if ascii, err := idna.Lookup.ToASCII(name); err == nil {
			name = ascii
		}
	}
	return strings.Trim(strings.ToLower(name), ".")
}
