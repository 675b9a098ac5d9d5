// Package author answers one question: who wrote this mail, for every reader
// that there may be? It reads the fields that name people (From, and likewise
// Sender and Resent-From), for the signer, for DMARC and for whoever asks if a
// login may use these names.
//
// The well-formed parts of a field are parsed as RFC 5322 section 3.4 and RFC
// 6854 have it: comments are skipped, quoted strings and display names are
// opaque, the members of a group count. Anything else is read as the most
// careless reader could: every text behind an "@" that has the form of a domain
// counts, also in quotes, comments, routes and decoded words. A text that is no
// domain makes the field unusable only when the address that it is part of
// yields no other.
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

// Bounds on what is read of a mail.
const (
	MaxField     = 64 << 10 // octets of all fields of one name; what follows is not read
	MaxAddresses = 1000     // addresses and names in them; what follows is not read
	MaxDomains   = 5        // domains that are kept
)

// Defect is why the fields cannot be judged, or not by Domains alone: a stable
// token.
type Defect string

// The defects.
const (
	Missing        Defect = "from_missing"     // no such field, or an empty one
	NoDomain       Defect = "from_no_domain"   // well-formed, but without any domain
	Unusable       Defect = "from_unusable"    // an address whose domain cannot be judged
	TooManyDomains Defect = "too_many_domains" // more than one of the bounds
)

// Author is what the fields of one name say.
type Author struct {
	// Domains are those that some reader could take for the author's: A-labels
	// in lower case, each once, in the order found, at most MaxDomains.
	Domains []string
	// Mailboxes are the addresses with a domain and a local part that is the
	// same to every reader, at most MaxAddresses. If the field is Malformed,
	// there may be others.
	Mailboxes []Mailbox
	// Defect is "" if Domains is all there is to judge.
	Defect Defect
	// Fields and Addresses count fields and the elements of their lists.
	Fields, Addresses int
	// Malformed says that a field is not what RFC 5322 section 3.6.2 and RFC
	// 6854 allow, so that Domains may hold domains which only some readers see.
	Malformed bool
	// Unclear says that an address has no local part, or no domain, that is the same
	// to every reader: it is not among the Mailboxes.
	Unclear bool

	unusable bool // an address has no domain that can be judged
	overflow bool // more than one of the bounds
	missing  bool // nothing at all is written
	guesses  int
}

// Mailbox is one address with its display name.
type Mailbox struct {
	Name   string // the display name as written, see DisplayName
	Local  string // as written, quotes included
	Domain string // A-labels in lower case
}

// Address returns the address of the mailbox.
func (m Mailbox) Address() string { return m.Local + "@" + m.Domain }

// DisplayName returns the display name as a reader shows it: without quotes,
// its encoded-words decoded. It is text from outside, not safe to print.
func (m Mailbox) DisplayName() string { return decodeName(m.Name) }

// ParseFrom reads the From fields of a header, given as names and values.
func ParseFrom(header iter.Seq2[string, string]) Author { return Parse("from", header) }

// Parse reads the fields of a header that have a name, which is given in lower
// case. A field counts whatever white space or control characters are in its
// own name.
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

// ParseField reads one field that names people.
func ParseField(value string) Author {
	a := Author{missing: true, Fields: 1}
	if len(value) > MaxField {
		value, a.overflow = value[:MaxField], true
	}
	a.readField(value)
	a.Malformed = a.Malformed || a.overflow
	a.Defect = a.defect()
	return a
}

// Named compares a field name with one in lower case the way a lenient reader does.
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

// readField reads the list of one field.
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

// readElement takes the domain of an address, or what may be one.
func (a *Author) readElement(e element) {
	m, form := e.mailbox()
	if m.Local != "" {
		a.Mailboxes = append(a.Mailboxes, m)
	} else if form != formName || hasBareAt(e.before) || hasBareAt(e.inside) {
		a.Unclear = true
	}
	switch form {
	case formAddress:
		a.add(m.Domain)
	case formName:
		// There is no domain here, but a decoded word may bring one.
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

func (a *Author) add(domain string) {
	switch {
	case slices.Contains(a.Domains, domain):
	case len(a.Domains) == MaxDomains:
		a.overflow = true
	default:
		a.Domains = append(a.Domains, domain)
	}
}
