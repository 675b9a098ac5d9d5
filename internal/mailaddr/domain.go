package mailaddr

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// ParseDomain returns the canonical form of a domain name: A-labels in lower
// case without a final dot (RFC 5890 section 2.3.2.1). A label has 1 to 63
// letters, digits, hyphens and underscores, and does not begin or end with a
// hyphen. The name has at most 253 octets. Address literals are not names. The
// error is a [Problem].
func ParseDomain(name string) (string, error) {
	domain, err := canonicalName(name)
	if err != "" {
		return "", err
	}
	return domain, nil
}

// canonicalDomain parses a name or an address literal.
func canonicalDomain(domain string) (string, Problem) {
	if strings.HasPrefix(domain, "[") {
		return canonicalLiteral(domain)
	}
	return canonicalName(domain)
}

func canonicalName(name string) (string, Problem) {
	if len(name) > maxUnicodeDomain {
		return "", ErrDomainTooLong
	}
	if !isASCII(name) {
		var err Problem
		if name, err = toASCII(name); err != "" {
			return "", err
		}
	}
	name = strings.TrimSuffix(name, ".")
	if err := checkName(name); err != "" {
		return "", err
	}
	return lower(name), ""
}

// toASCII converts U-labels to A-labels with the mapping of UTS 46 for
// look-ups. It is non-transitional, as in RFC 5891 and today's browsers. The
// caller must check the result like any other name. It is not called for ASCII
// names, because DNS compares them as they are, with valid A-labels or not.
func toASCII(name string) (string, Problem) {
	if !utf8.ValidString(name) {
		return "", ErrUTF8
	}
	ascii, err := profile().ToASCII(name)
	if err != nil || !isASCII(ascii) {
		return "", ErrUnicodeDomain
	}
	return ascii, ""
}

func profile() *idna.Profile {
	return idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false),
		idna.StrictDomainName(false), idna.VerifyDNSLength(false))
}

// checkName checks an ASCII name without its final dot.
func checkName(name string) Problem {
	if name == "" {
		return ErrEmptyDomain
	}
	if len(name) > MaxDomain {
		return ErrDomainTooLong
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '.' {
			if !isNameByte(name[i]) {
				return badNameByte(name[i])
			}
			continue
		}
		if !isLabel(name[start:i]) {
			return ErrLabel
		}
		start = i + 1
	}
	return ""
}

func isLabel(label string) bool {
	return label != "" && len(label) <= MaxLabel && label[0] != '-' && label[len(label)-1] != '-'
}

func isNameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || 'A' <= c && c <= 'Z' || c == '_'
}

func badNameByte(c byte) Problem {
	if isControl(c) {
		return ErrControl
	}
	return ErrDomainChar
}

// canonicalLiteral parses an IPv4 or IPv6 address literal (RFC 5321 section
// 4.1.3). General literals are invalid, because mail cannot be sent to them.
func canonicalLiteral(domain string) (string, Problem) {
	if len(domain) > MaxDomain || !strings.HasSuffix(domain, "]") {
		return "", ErrLiteral
	}
	const tag = "IPv6:"
	text := domain[1 : len(domain)-1]
	is6 := len(text) > len(tag) && strings.EqualFold(text[:len(tag)], tag)
	if is6 {
		text = text[len(tag):]
	}
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Is6() != is6 || ip.Zone() != "" {
		return "", ErrLiteral
	}
	if is6 {
		return "[" + tag + ip.String() + "]", ""
	}
	return "[" + ip.String() + "]", ""
}

// UnicodeDomain returns the domain with U-labels where they can be decoded, for
// people and for tables that use them. Most domains are returned unchanged.
func (a Address) UnicodeDomain() string {
	if a.plain || !strings.Contains(a.Domain, "xn--") {
		return a.Domain
	}
	if u, err := profile().ToUnicode(a.Domain); err == nil {
		return u
	}
	return a.Domain
}
