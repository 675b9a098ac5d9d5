package mailaddr

import (
	"strings"
	"unicode/utf8"
)

// trimBrackets removes one pair of angle brackets; ok is false for half a pair.
func trimBrackets(raw string) (string, bool) {
	open, closed := strings.HasPrefix(raw, "<"), strings.HasSuffix(raw, ">")
	if open != closed || raw == "<" || raw == ">" {
		return "", false
	}
	if open {
		return raw[1 : len(raw)-1], true
	}
	return raw, true
}

// dropRoute removes a leading "@one,@two:", as RFC 5321 section 3.6.1 asks.
func dropRoute(text string) string {
	if strings.HasPrefix(text, "@") {
		if colon := strings.IndexByte(text, ':'); colon >= 0 {
			return text[colon+1:]
		}
	}
	return text
}

// splitExternal splits an external address at the last "@", as Postfix does,
// and unquotes the local part.
func splitExternal(text string) (local, domain string, bare bool, err Problem) {
	if strings.HasPrefix(text, `"`) {
		return splitQuoted(text)
	}
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		at, bare = len(text), true
	} else {
		domain = text[at+1:]
	}
	local = text[:at]
	if strings.ContainsAny(local, specials) {
		return "", "", bare, ErrSpecial
	}
	return local, domain, bare, ""
}

// splitQuoted parses a quoted-string (RFC 5321 section 4.1.2) and what follows
// it.
func splitQuoted(text string) (local, domain string, bare bool, err Problem) {
	local, end := Unquote(text)
	if end < 0 {
		return "", "", false, ErrQuote
	}
	switch rest := text[end:]; {
	case rest == "":
		return local, "", true, ""
	case rest[0] == '@':
		return local, rest[1:], false, ""
	}
	return "", "", false, ErrQuote
}

func unescape(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// specials are the characters that an unquoted local part cannot contain in the
// external form. "@" is not one of them, because Postfix splits at the last
// one.
const specials = "()<>,;:\\\"[] "

// Quote returns the external form of a semantic local part, as in postmap(1)
// keys. A dot-string (RFC 5321 section 4.1.2, UTF-8 as of RFC 6531) is not
// changed. Other text becomes a quoted-string.
func Quote(local string) string {
	if isDotString(local) {
		return local
	}
	var b strings.Builder
	b.Grow(len(local) + 4)
	b.WriteByte('"')
	for i := range len(local) {
		if local[i] == '"' || local[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteByte('"')
	return b.String()
}

func isDotString(local string) bool {
	if local == "" || local[0] == '.' || local[len(local)-1] == '.' {
		return false
	}
	for i := range len(local) {
		c := local[i]
		if c == '.' && local[i+1] == '.' || !isDotText(c) {
			return false
		}
	}
	return true
}

// isDotText reports whether an octet may be in a dot-string. Letters come
// first, because most octets are letters.
func isDotText(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c >= utf8.RuneSelf:
		return true
	case c == '@' || isControl(c):
		return false
	}
	return strings.IndexByte(specials, c) < 0
}
