// Package mailaddr parses envelope addresses, and compares them as Postfix
// does.
//
// An envelope address has two forms. The external form is used in SMTP (RFC
// 5321 section 4.1.2): a local part that is not a dot-string is in quotes, with
// backslashes before quotes and backslashes. The internal form is what Postfix
// has after parsing, and sends in policy requests: the same address without the
// quoting, which the last "@" splits. [Parse] parses the external form and
// [ParseInternal] the internal form. They must not be exchanged:
// `"\"ceo\""@example.com` would then be the same as ceo@example.com.
//
// Invariants:
//   - parsing never fails and never panics: an address that names no mailbox
//     keeps its Raw and says why in [Address.Err];
//   - Local is the semantic local part, case kept; Domain is lower-case A-labels
//     without a final dot, or a canonical address literal, so that two addresses
//     name the same domain exactly when the strings are equal;
//   - [Address.String] of a valid address parses to the same Local and Domain.
//
// Where the RFCs and common practice differ, this parser does as Postfix does.
// It accepts local parts over 64 octets (VERP, SRS), misplaced dots, and
// underscores in host names. It never accepts control characters, invalid UTF-8
// or empty parts.
package mailaddr

import (
	"strings"
	"unicode/utf8"
)

// Bounds of a valid address.
const (
	// MaxLocal is the longest local part, in octets. RFC 5321 section 4.5.3.1.1
	// says 64, but VERP and SRS senders often exceed that. Postfix has no bound
	// except its line length of 2048 octets.
	MaxLocal = 1024
	// MaxDomain is the longest domain, in octets as A-labels without a final dot
	// (RFC 1035 section 2.3.4: 255 on the wire).
	MaxDomain = 253
	// MaxLabel is the longest label of a domain, in octets (RFC 1035).
	MaxLabel = 63
	// maxUnicodeDomain is the longest domain that is converted to A-labels, in
	// octets. A character has at most four octets in UTF-8.
	maxUnicodeDomain = 4 * MaxDomain
)

// Problem is the reason why an address or domain is not valid. The values are
// constants, so callers may compare them.
type Problem string

// Error returns the problem in words, without the address.
func (p Problem) Error() string { return string(p) }

// The problems of an address or a domain.
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

// Parse parses an address in its external form, with or without angle brackets.
// A source route (RFC 5321 appendix C) is dropped. Parse never fails: see
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

// ParseInternal parses an address in Postfix's internal form, as in the sender
// and recipient attributes of a policy request. Everything before the last "@"
// is the local part, with quotes and backslashes.
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

// Err returns why the address is not a mailbox. It is nil for a mailbox and for
// the null sender, [ErrNoDomain] for a bare local part, and another [Problem]
// for an invalid address.
func (a Address) Err() error {
	if a.err == "" {
		return nil
	}
	return a.err
}

// IsNull reports whether the address is the null sender ("" or "<>").
func (a Address) IsNull() bool { return a.err == "" && a.Local == "" && a.Domain == "" }

// IsBare reports whether the address is a valid local part without a domain
// ("postmaster").
func (a Address) IsBare() bool { return a.err == ErrNoDomain }

// IsLiteral reports whether the domain is an address literal.
func (a Address) IsLiteral() bool { return strings.HasPrefix(a.Domain, "[") }

// IsValid reports whether the address is a mailbox or a bare local part.
func (a Address) IsValid() bool { return a.Local != "" }

// IsPlain reports whether the address has only one spelling. Raw is then its
// external form, its internal form and its folded key, and its domain is the
// same as A-labels and as U-labels. Nearly every address is plain.
func (a Address) IsPlain() bool { return a.plain }

// String returns the external form: quoted where RFC 5321 requires it, with the
// domain as A-labels, without brackets. It returns "" for the null sender and
// Raw for an invalid address.
func (a Address) String() string {
	if a.Local == "" {
		return a.rawUnlessNull()
	}
	if a.plain || isDotString(a.Local) {
		return a.Key()
	}
	return join(Quote(a.Local), a.Domain)
}

// Key returns the internal form, which Postfix looks up: Local@Domain, or Local
// for a bare address. It returns "" for the null sender and Raw for an invalid
// address.
func (a Address) Key() string {
	if a.Local == "" {
		return a.rawUnlessNull()
	}
	if a.plain || a.isInternal() {
		return a.Raw
	}
	return join(a.Local, a.Domain)
}

// isInternal reports whether Raw is the internal form already, as nearly
// always.
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

// WithDomain returns a copy of a bare address in the given domain, which must
// be canonical (see [ParseDomain]). Any other address is returned as it is. Raw
// does not change.
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

// build checks the local part and the domain and makes them canonical.
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

// checkLocal checks a semantic local part.
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
