// Package author finds every author that some reader of a mail could see. It
// parses the fields that name people: From, and likewise Sender and
// Resent-From. The signer, DMARC and the check whether a login may use these
// names need it.
//
// The well-formed parts of a field are parsed by RFC 5322 section 3.4 and RFC
// 6854. Comments are skipped, quoted strings and display names are opaque, and
// the members of a group count. Other text is read as the most careless reader
// could read it. Every text after an "@" that has the form of a domain counts,
// also in quotes, comments, routes and decoded words. Text that is not a domain
// makes the field unusable only if its address has no other domain.
//
// Invariants:
//
//   - Every field has an outcome: a domain, or a Defect.
//   - A domain that some reader could take for the author's is in Domains, or
//     the Defect says that there are more.
//   - Work is linear in the size of the field, and what is kept is bounded by
//     MaxField, MaxAddresses and MaxDomains. No panics, no logging.
package author

import (
	"iter"
	"slices"
)

// Bounds on the fields of a mail.
const (
	MaxField     = 64 << 10 // octets of all fields of one name; the rest is not read
	MaxAddresses = 1000     // addresses and names in them; the rest is not read
	MaxDomains   = 5        // domains that are kept
)

// Defect is the reason why the fields cannot be judged, or not by Domains
// alone. It is a stable token.
type Defect string

// The defects.
const (
	Missing        Defect = "from_missing"     // no such field, or an empty one
	NoDomain       Defect = "from_no_domain"   // well-formed, but without any domain
	Unusable       Defect = "from_unusable"    // an address whose domain cannot be judged
	TooManyDomains Defect = "too_many_domains" // a bound is exceeded
)

// Author is the result for the fields of one name.
type Author struct {
	// Domains are the domains that some reader could take for the author's.
	// They are A-labels in lower case, each once, in the order found, at most
	// MaxDomains.
	Domains []string
	// Mailboxes are the addresses whose domain and local part are the same to
	// every reader, at most MaxAddresses. If the field is Malformed, there may
	// be others.
	Mailboxes []Mailbox
	// Defect is "" if Domains is complete.
	Defect Defect
	// Fields and Addresses count fields and the elements of their lists.
	Fields, Addresses int
	// Malformed reports whether a field breaks RFC 5322 section 3.6.2 and RFC
	// 6854. Domains may then contain domains that only some readers see.
	Malformed bool
	// Unclear reports whether an address has no local part or no domain that is
	// the same to every reader. It is not in Mailboxes.
	Unclear bool

	unusable bool // an address has no domain that can be judged
	overflow bool // a bound is exceeded
	missing  bool // the field is empty or absent
	guesses  int
}

// Mailbox is one address with its display name.
type Mailbox struct {
	Name   string // the display name as written; see DisplayName
	Local  string // as written, quotes included
	Domain string // A-labels in lower case
}

// Address returns the address of the mailbox.
func (m Mailbox) Address() string { return m.Local + "@" + m.Domain }

// DisplayName returns the display name as a reader shows it: without quotes,
// with its encoded-words decoded. It is text from outside and not safe to
// print.
func (m Mailbox) DisplayName() string { return decodeName(m.Name) }

// ParseFrom parses the From fields of a header, given as names and values.
func ParseFrom(header iter.Seq2[string, string]) Author { return Parse("from", header) }

// Parse parses the fields of a header with one name, which is given in lower
// case. White space and control characters in the name of a field are ignored.
func Parse(field string, header iter.Seq2[string, string]) Author {
	a := Author{missing: true}
	left := MaxField
	for name, value := range header {
		if !Named(name, field) {
			continue
		}
		a.Fields++
		if len(value) > left {
			value, a.overflow = value[:left], true
		}
		left -= len(value)
		a.readField(value)
	}
	a.Malformed = a.Malformed || a.Fields != 1 || a.overflow
	a.Defect = a.defect()
	return a
}

// ParseField parses one field that names people.
func ParseField(value string) Author {
	return ParseFrom(func(yield func(name, value string) bool) { yield("From", value) })
}

// Named reports whether a lenient reader takes a field name for the given one,
// which is in lower case.
func Named(name, field string) bool {
	n := 0
	for _, b := range []byte(name) {
		if b <= ' ' || b == 0x7f {
			continue
		}
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		if n == len(field) || b != field[n] {
			return false
		}
		n++
	}
	return n == len(field)
}

func (a *Author) defect() Defect {
	switch {
	case a.overflow:
		return TooManyDomains
	case a.unusable:
		return Unusable
	case len(a.Domains) > 0:
		return ""
	case a.missing:
		return Missing
	}
	return NoDomain
}

// readField parses the list of one field.
func (a *Author) readField(value string) {
	for e := range elements(value) {
		if e.blank() {
			a.Malformed = a.Malformed || e.last == ':'
			continue
		}
		a.missing = false
		if a.Addresses == MaxAddresses {
			a.overflow = true
			return
		}
		a.Addresses++
		a.readElement(e)
	}
}

// readElement adds the domain of an address, or text that may be one.
func (a *Author) readElement(e element) {
	m, form := e.mailbox()
	if m.Local != "" {
		a.Mailboxes = append(a.Mailboxes, m)
	} else if form != formName || hasBareAt(e.before) || hasBareAt(e.inside) {
		a.Unclear = true
	}
	switch form {
	case formAddress:
		a.addDomain(m.Domain)
	case formName:
		// There is no domain here, but a decoded word may contain one.
		if text, ok := decodeWords(e.raw); ok {
			a.guess(text)
		}
	case formUnusual:
		a.Malformed = true
		a.guess(e.raw, m.Domain)
	case formBroken:
		a.Malformed = true
		a.guess(e.raw)
	}
}

func (a *Author) addDomain(domain string) {
	switch {
	case slices.Contains(a.Domains, domain):
	case len(a.Domains) == MaxDomains:
		a.overflow = true
	default:
		a.Domains = append(a.Domains, domain)
	}
}
