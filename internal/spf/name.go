package spf

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/idna"
)

// Limits of a domain name in text form (RFC 1035 section 2.3.4).
const (
	maxName  = 253
	maxLabel = 63
)

// The reasons why an identity has no domain that can be asked (RFC 7208 section
// 4.3).
var (
	errNoDomain    = errors.New("no domain")
	errNotFQDN     = errors.New("not a fully qualified domain name")
	errNameSyntax  = errors.New("not a domain name")
	errBadULabel   = errors.New("not a valid internationalised domain name")
	errNameTooLong = errors.New("domain name too long")
)

// identityDomain returns the domain of an identity in the form that this package
// uses: lower-case A-labels, no trailing dot. An error means that there is no
// domain to ask. It does not count against the sender.
func identityDomain(s string) (string, error) {
	ascii, err := toALabels(s)
	if err != nil {
		return "", fmt.Errorf("domain %.80q: %w", s, err)
	}
	name := strings.ToLower(strings.TrimSuffix(ascii, "."))
	if err := checkIdentity(name); err != nil {
		return "", fmt.Errorf("domain %.80q: %w", s, err)
	}
	return name, nil
}

func checkIdentity(name string) error {
	switch {
	case name == "":
		return errNoDomain
	case len(name) > maxName:
		return errNameTooLong
	case !goodLabels(name) || !hostChars(name):
		return errNameSyntax
	}
	dot := strings.LastIndexByte(name, '.')
	// A numeric top label is an address without its brackets.
	if dot < 0 || strings.Trim(name[dot+1:], "0123456789") == "" {
		return errNotFQDN
	}
	return nil
}

// toALabels converts U-labels (RFC 5890). A name in ASCII is returned unchanged and
// unchecked. The length is checked first, because the cost of the conversion grows
// with it.
func toALabels(s string) (string, error) {
	if isASCII(s) {
		return s, nil
	}
	if len(s) > 4*maxName {
		return "", errNameTooLong
	}
	ascii, err := idna.Lookup.ToASCII(s)
	if err != nil {
		return "", errBadULabel
	}
	return ascii, nil
}

// queryable reports whether DNS can be asked for a name. The name is a result of
// macro expansion, without its trailing dot. It may hold any printable character
// except the backslash. Resolvers read that as an escape, so a client's HELO could
// move the boundary of a label.
func queryable(name string) bool {
	if name == "" || len(name) > maxName || !goodLabels(name) {
		return false
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' || name[i] == '\\' {
			return false
		}
	}
	return true
}

// goodLabels reports whether every label has 1 to 63 bytes.
func goodLabels(name string) bool {
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '.' {
			continue
		}
		if n := i - start; n == 0 || n > maxLabel {
			return false
		}
		start = i + 1
	}
	return true
}

// hostChars reports whether the name has only letters, digits, hyphens and
// underscores. Real sender domains use underscores.
func hostChars(name string) bool {
	for i := range len(name) {
		if b := name[i]; !isAlnum(b) && b != '-' && b != '_' && b != '.' {
			return false
		}
	}
	return true
}

// inDomain reports whether name is the domain or below it. Both are in lower case.
func inDomain(name, domain string) bool {
	rest, ok := strings.CutSuffix(name, domain)
	return ok && (rest == "" || rest[len(rest)-1] == '.')
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func isAlpha(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }
func isDigit(b byte) bool { return b >= '0' && b <= '9' }
func isAlnum(b byte) bool { return isAlpha(b) || isDigit(b) }
