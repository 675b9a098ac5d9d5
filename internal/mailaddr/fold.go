package mailaddr

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
)

// Fold returns the form in which Postfix compares logins and table keys without
// case. ASCII is put in lower case, other text is folded by Unicode's full case
// folding ("Straße" and "STRASSE" are equal). In invalid UTF-8 only ASCII is
// folded, so it is equal only to itself.
func Fold(s string) string {
	if isLower(s) {
		return s
	}
	if isASCII(s) || !utf8.ValidString(s) {
		return lower(s)
	}
	return strings.Map(cherokeeUpper, cases.Fold().String(s))
}

// cherokeeUpper corrects the only script that folds to upper case. cases.Fold
// swaps the two cases there, so a second folding would undo the first.
func cherokeeUpper(r rune) rune {
	switch {
	case 0xab70 <= r && r <= 0xabbf:
		return r - 0xab70 + 0x13a0
	case 0x13f8 <= r && r <= 0x13fd:
		return r - 8
	}
	return r
}

// FoldKey folds a table key or a login. The part after the last "@" becomes a
// canonical domain if it is a domain. The rest is folded by [Fold]. The key may
// be "@domain", "user", "user@domain" or a quoted form. For a valid address,
// FoldKey(raw) is the same as FoldKey(ParseInternal(raw).Key()).
func FoldKey(key string) string {
	if isLower(key) && !hasSpellings(key) {
		return key
	}
	return foldKey(key)
}

func foldKey(key string) string {
	at := strings.LastIndexByte(key, '@')
	if at < 0 || at+1 == len(key) {
		return Fold(key)
	}
	domain := key[at+1:]
	if isASCII(key) && domain[0] != '[' && domain[len(domain)-1] != '.' {
		return lower(key) // the usual key, which can differ only in case
	}
	canonical, err := canonicalDomain(domain)
	if err != "" {
		return Fold(key)
	}
	return Fold(key[:at]) + "@" + lower(canonical)
}

// hasSpellings reports whether the domain of a key may have more than one
// spelling: with a final dot, or as an address literal.
func hasSpellings(key string) bool {
	return strings.HasSuffix(key, ".") || strings.HasSuffix(key, "]")
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// lower puts ASCII letters in lower case and leaves every other octet as it is.
// It returns s itself if there is nothing to change, which is nearly always the
// case.
func lower(s string) string {
	for i := range len(s) {
		if isUpper(s[i]) {
			return lowerFrom(s, i)
		}
	}
	return s
}

func lowerFrom(s string, start int) string {
	b := []byte(s)
	for i := start; i < len(b); i++ {
		if isUpper(b[i]) {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}
