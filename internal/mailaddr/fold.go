package mailaddr

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
)

// Fold gives the form under which Postfix compares logins and table keys
// ignoring case: ASCII in lower case, anything else by Unicode's full case
// folding ("Straße" and "STRASSE" are equal). Invalid UTF-8 is folded as ASCII
// only, so that it equals nothing but itself.
func Fold(s string) string {
	if isLower(s) {
		return s
	}
	if isASCII(s) || !utf8.ValidString(s) {
		return lower(s)
	}
	return strings.Map(cherokeeUpper, cases.Fold().String(s))
}

// cherokeeUpper fixes the one script whose folding goes to upper case: cases.Fold
// swaps the two cases there, so that folding twice would undo the first.
func cherokeeUpper(r rune) rune {
	switch {
	case 0xab70 <= r && r <= 0xabbf:
		return r - 0xab70 + 0x13a0
	case 0x13f8 <= r && r <= 0x13fd:
		return r - 8
	}
	return r
}

// FoldKey folds a table key or a login: the part after the last "@" becomes a
// canonical domain in lower case if it is one, the rest is folded by [Fold].
// "@domain", "user", "user@domain" and the quoted forms are all taken. For a valid
// address FoldKey(raw) and FoldKey(ParseInternal(raw).Key()) are the same.
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
		return lower(key) // the usual key: nothing but its case can differ
	}
	canonical, err := canonicalDomain(domain)
	if err != "" {
		return Fold(key)
	}
	return Fold(key[:at]) + "@" + lower(canonical)
}

// hasSpellings recognises a key that ends like a domain with more than one spelling: with a
// final dot, or an address literal.
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

// lower puts ASCII letters in lower case and leaves every other octet alone. It
// returns s itself when there is nothing to do, which is nearly always.
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
