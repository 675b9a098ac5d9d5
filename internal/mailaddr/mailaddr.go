// Package mailaddr answers: which mailbox does this envelope address name?
//
// An envelope address has two spellings. The external one travels in SMTP
// (RFC 5321 section 4.1.2): a local part that is not a dot-string is in
// quotes, with backslashes before quotes and backslashes. The internal one is
// what Postfix keeps after parsing and what it puts into a policy request: the
// same address with the quoting removed, so that the last "@" splits it.
// [Parse] reads the first, [ParseInternal] the second; reading one as the other
// would let `"\"ceo\""@example.com` pass for ceo@example.com.
//
// Invariants:
//   - parsing never fails and never panics: an address that names no mailbox
//     keeps its Raw and says why in [Address.Err];
//   - Local is the semantic local part, case kept; Domain is lower-case A-labels
//     without a final dot, or a canonical address literal, so that two addresses
//     name the same domain exactly when the strings are equal;
//   - [Address.String] of a valid address parses to the same Local and Domain.
//
// Where the RFCs and the installed base differ, this parser sides with Postfix:
// local parts over 64 octets (VERP, SRS) and misplaced dots are accepted,
// underscores in host names too. Control characters, invalid UTF-8 and empty
// parts never are.
package mailaddr

import (
	"strings"
	"unicode/utf8"
)

// Bounds of an address that can still name a mailbox.
const (
	// MaxLocal is the longest local part, in octets. RFC 5321 section 4.5.3.1.1
	// says 64, which VERP and SRS senders exceed every day; Postfix has no bound
	// but its line length of 2048 octets.
	MaxLocal = 1024
	// MaxDomain is the longest domain, in octets as A-labels without a final dot
	// (RFC 1035 section 2.3.4: 255 on the wire).
	MaxDomain = 253
	// MaxLabel is the longest label of a domain, in octets (RFC 1035).
	MaxLabel = 63
	// maxUnicodeDomain bounds the work on a domain before it is turned into
	// A-labels: no character of UTF-8 is longer than four octets.
	maxUnicodeDomain = 4 * MaxDomain
)

// Problem is why an address or domain is not valid. The values are constants, so
// that callers may compare.
type Problem string

// Error gives the problem in words, without the address.
func (p Problem) Error() string { return string(p) }

// What can be wrong with an address or a domain.
const (
	ErrNoDomain      Problem = "address has no domain"
	ErrEmptyLocal    Problem = "address has an empty local part"
	ErrEmptyDomain   Problem = "domain is empty"
	ErrLocalTooLong  Problem = "local part is longer than 1024 octets"
	ErrDomainTooLong Problem = "domain is longer than 253 octets"
	ErrControl       Problem = "control character"
	ErrUTF8          Problem = "invalid UTF-8"
	ErrQuote         Problem = "quoted local part does not end before the domain"
	ErrSpecial       Problem = "character that needs quoting in the local part"
	ErrBrackets      Problem = "unbalanced angle brackets"
	ErrLabel         Problem = "domain has an empty, too long or misplaced-hyphen label"
	ErrDomainChar    Problem = "character that no domain can have"
	ErrUnicodeDomain Problem = "domain is no valid internationalised name"
	ErrLiteral       Problem = "invalid address literal"
)

// Address is one parsed envelope address. The zero value is the null sender.
type Address struct {
	Raw    string // exactly as received
	Local  string // semantic local part: no quoting, case kept; "" if invalid
	Domain string // A-labels in lower case, or [192.0.2.1], or [IPv6:2001:db8::1]; "" if none

	err   Problem
	plain bool // see IsPlain
}

// Parse reads an address in its external form, with or without angle brackets.
// A source route (RFC 5321 appendix C) is dropped. It never fails: see
// [Address.Err].
func Parse(raw string) Address {
	if at := plainAt(raw); at > 0 {
		return plain(raw, at)
	}
	return parseExternal(raw)
}

func parseExternal(raw string) Address {
	text, ok := trimBrackets(raw)
	if !ok {
		return Address{Raw: raw, err: ErrBrackets}
	}
	if text == "" {
		return Address{Raw: raw}
	}
	local, domain, bare, err := splitExternal(dropRoute(text))
	return build(raw, local, domain, bare, err)
}

// ParseInternal reads an address in Postfix's internal form, as the sender and
// recipient attributes of a policy request have it: everything before the last
// "@" is the local part, quotes and backslashes included.
func ParseInternal(raw string) Address {
	if at := plainAt(raw); at > 0 {
		return plain(raw, at)
	}
	return parseInternal(raw)
}

func plain(raw string, at int) Address {
	return Address{Raw: raw, Local: raw[:at], Domain: raw[at+1:], plain: true}
}

func parseInternal(raw string) Address {
	if raw == "" || raw == "<>" {
		return Address{Raw: raw}
	}
	at := strings.LastIndexByte(raw, '@')
	if at < 0 {
		return build(raw, raw, "", true, "")
	}
	return build(raw, raw[:at], raw[at+1:], false, "")
}

// Err says why the address is not a mailbox: nil for a mailbox and for the null
// sender, [ErrNoDomain] for a bare local part, another [Problem] for what is
// invalid.
func (a Address) Err() error {
	if a.err == "" {
		return nil
	}
	return a.err
}

// IsNull recognises the null sender ("" or "<>").
func (a Address) IsNull() bool { return a.err == "" && a.Local == "" && a.Domain == "" }

// IsBare recognises a valid local part without a domain ("postmaster").
func (a Address) IsBare() bool { return a.err == ErrNoDomain }

// IsLiteral recognises an address whose domain is an address literal.
func (a Address) IsLiteral() bool { return strings.HasPrefix(a.Domain, "[") }

// IsValid recognises an address that names somebody: a mailbox or a bare local part.
func (a Address) IsValid() bool { return a.Local != "" }

// IsPlain recognises a mailbox that has one spelling only: Raw is its external and its
// internal form, its folded key, and its domain the same in A-labels and
// U-labels. Nearly every address is plain.
func (a Address) IsPlain() bool { return a.plain }

// String gives the external form: quoted where RFC 5321 asks for it, the domain
// as A-labels, no brackets. The null sender gives "", an invalid address its Raw.
func (a Address) String() string {
	if a.Local == "" {
		return a.rawUnlessNull()
	}
	if a.plain || isDotString(a.Local) {
		return a.Key()
	}
	return join(Quote(a.Local), a.Domain)
}

// Key gives the internal form Local@Domain, or Local alone for a bare address:
// what Postfix looks up. The null sender gives "", an invalid address its Raw.
func (a Address) Key() string {
	if a.Local == "" {
		return a.rawUnlessNull()
	}
	if a.plain || a.isInternal() {
		return a.Raw
	}
	return join(a.Local, a.Domain)
}

// isInternal reports that Raw is the internal form already, which it nearly always is.
func (a Address) isInternal() bool {
	n := len(a.Local)
	if a.Domain == "" {
		return a.Raw == a.Local
	}
	return len(a.Raw) == n+1+len(a.Domain) && a.Raw[n] == '@' && a.Raw[:n] == a.Local && a.Raw[n+1:] == a.Domain
}

func (a Address) rawUnlessNull() string {
	if a.err == "" {
		return ""
	}
	return a.Raw
}

// WithDomain gives a copy of a bare address in the given domain, which must be
// canonical (see [ParseDomain]); any other address is returned as it is. Raw stays.
func (a Address) WithDomain(domain string) Address {
	if !a.IsBare() || domain == "" {
		return a
	}
	a.Domain, a.err = domain, ""
	return a
}

func join(local, domain string) string {
	if domain == "" {
		return local
	}
	return local + "@" + domain
}

// build checks the two halves and makes them canonical.
func build(raw, local, domain string, bare bool, err Problem) Address {
	if err == "" {
		err = checkLocal(local)
	}
	if err != "" {
		return Address{Raw: raw, err: err}
	}
	if bare {
		return Address{Raw: raw, Local: local, err: ErrNoDomain}
	}
	name, err := canonicalDomain(domain)
	if err != "" {
		return Address{Raw: raw, err: err}
	}
	return Address{Raw: raw, Local: local, Domain: name}
}

// checkLocal judges a semantic local part.
func checkLocal(local string) Problem {
	if local == "" {
		return ErrEmptyLocal
	}
	if len(local) > MaxLocal {
		return ErrLocalTooLong
	}
	ascii := true
	for i := range len(local) {
		if isControl(local[i]) {
			return ErrControl
		}
		ascii = ascii && local[i] < utf8.RuneSelf
	}
	if ascii {
		return ""
	}
	return checkUnicode(local)
}

// checkUnicode rejects invalid UTF-8 and the C1 control characters.
func checkUnicode(s string) Problem {
	if !utf8.ValidString(s) {
		return ErrUTF8
	}
	for _, r := range s {
		if r >= 0x80 && r < 0xa0 {
			return ErrControl
		}
	}
	return ""
}

func isControl(c byte) bool { return c < ' ' || c == 0x7f }
