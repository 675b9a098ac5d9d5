package dmarc

import (
	"bytes"
	"io"
	"iter"
	"mime"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Bounds on the From header.
const (
	MaxFrom      = 64 << 10 // octets of all From fields; what follows is not read
	MaxAddresses = 1000     // addresses and names in From; what follows is not read
)

// Author is what the From header says, for every reader that there may be.
type Author struct {
	// Domains are those that some reader could take for the author's: A-labels
	// in lower case, each once, in the order found, at most MaxDomains.
	Domains []string
	// Defect is why the header cannot be judged, or not by Domains alone:
	// FromMissing, FromNoDomain, FromUnusable, TooManyDomains, or "".
	Defect Reason
	// Fields and Addresses count From fields and the elements of their lists.
	Fields, Addresses int
	// Malformed says that a field is not what RFC 5322 section 3.6.2 and RFC
	// 6854 allow, so that Domains may hold domains which only some readers see.
	Malformed bool

	unusable bool // an address has no domain that can be judged
	overflow bool // more than one of the bounds
	missing  bool // nothing at all is written
	guesses  int
}

// ParseFrom reads the From fields of a header, given as names and values. A
// field counts whatever white space or control characters stand in its name.
//
// The well-formed parts of a field are parsed as RFC 5322 has it: comments are
// skipped, quoted strings and display names are opaque, the members of a group
// count. Anything else is read as the most careless reader could: every text
// behind an "@" that has the form of a domain counts, also in quotes, comments,
// routes and decoded words. A text that is no domain makes the header unusable
// only when the address that it stands in yields no other.
func ParseFrom(header iter.Seq2[string, string]) Author {
	a := Author{missing: true}
	left := MaxFrom
	for name, value := range header {
		if !isFrom(name) {
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

// isFrom compares a field name the way a lenient reader does.
func isFrom(name string) bool {
	const from = "from"
	n := 0
	for _, b := range []byte(name) {
		if b <= ' ' || b == 0x7f {
			continue
		}
		if n == len(from) || b|0x20 != from[n] {
			return false
		}
		n++
	}
	return n == len(from)
}

func (a *Author) defect() Reason {
	switch {
	case a.overflow:
		return TooManyDomains
	case a.unusable:
		return FromUnusable
	case len(a.Domains) > 0:
		return ""
	case a.missing:
		return FromMissing
	}
	return FromNoDomain
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
	domain, form := e.domain()
	switch form {
	case formAddress:
		a.add(domain)
	case formName:
		// Nobody has a domain here, but a decoded word may bring one.
		if text, ok := decodeWords(e.raw); ok {
			a.guess(text)
		}
	case formBroken:
		a.Malformed = true
		if domain != "" {
			a.guess(e.raw, domain)
		} else {
			a.guess(e.raw)
		}
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

// guess adds every domain that a text could be read to hold, after those found
// already. Single labels count when there is nothing better: "John @ work
// <a@example.com>" is no address at "work".
func (a *Author) guess(text string, found ...string) {
	texts := []string{text}
	if decoded, ok := decodeWords(text); ok {
		texts = append(texts, decoded)
	}
	if plain := dropComments(text); plain != text {
		texts = append(texts, plain)
	}
	var single []string
	signs := false
	for _, text := range texts {
		for domain := range candidates(text) {
			if a.guesses++; a.guesses > MaxAddresses {
				a.overflow = true
				return
			}
			signs = true
			domain, err := mailaddr.ParseDomain(domain)
			switch {
			case err != nil:
			case strings.Contains(domain, "."):
				found = append(found, domain)
			default:
				single = append(single, domain)
			}
		}
	}
	a.Malformed = a.Malformed || signs
	if len(found) == 0 {
		found = single
	}
	a.unusable = a.unusable || signs && len(found) == 0
	for _, domain := range found {
		a.add(domain)
	}
}

// candidates yields what could be the domain behind each "@".
func candidates(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			at := strings.IndexByte(text, '@')
			if at < 0 {
				return
			}
			text = text[at+1:]
			for _, domain := range readings(strings.TrimLeft(text, " \t\r\n[")) {
				if !yield(domain) {
					return
				}
			}
		}
	}
}

// readings gives the domain that a text begins with, up to the first octet that
// cannot be in one. When that is a control character, a quote or an escape, the
// reading of those who drop it counts too, and so does that of those who drop
// the space within brackets.
func readings(text string) []string {
	end := domainEnd(text)
	all := []string{strings.Trim(text[:end], ".-")}
	if end == len(text) {
		return all
	}
	if isHidden(text[end]) {
		domain, _ := dropOctets(text, isHidden)
		all = append(all, domain)
	}
	if isHiddenOrSpace(text[end]) {
		if domain, next := dropOctets(text, isHiddenOrSpace); next == '>' {
			all = append(all, domain)
		}
	}
	return all
}

// maxCandidate bounds what is read across dropped octets: no domain is
// longer, as U-labels in UTF-8.
const maxCandidate = 1024

// dropOctets reads a domain without certain octets, up to the next one that
// cannot be in it, which it gives too.
func dropOctets(text string, drop func(byte) bool) (domain string, next byte) {
	kept := make([]byte, 0, 64)
	for i := 0; i < min(len(text), maxCandidate); i++ {
		if drop(text[i]) {
			continue
		}
		if !isDomainOctet(text[i]) {
			next = text[i]
			break
		}
		kept = append(kept, text[i])
	}
	return string(bytes.Trim(kept, ".-")), next
}

// dropComments gives what is left to those who put together what stands around a
// comment.
func dropComments(text string) string {
	var kept []byte
	for {
		start := strings.IndexByte(text, '(')
		if start < 0 {
			break
		}
		end := mailaddr.CommentEnd(text[start:])
		if end < 0 {
			break
		}
		kept = append(kept, text[:start]...)
		text = text[start+end:]
	}
	return string(kept) + text
}

func domainEnd(text string) int {
	for i := range len(text) {
		if !isDomainOctet(text[i]) {
			return i
		}
	}
	return len(text)
}

func isDomainOctet(b byte) bool {
	return isAlpha(b) || isDigit(b) || b == '-' || b == '.' || b == '_' || b >= 0x80
}

// isHidden tells what some readers drop from an address: control characters, and
// what quotes and escapes.
func isHidden(b byte) bool {
	return b < ' ' && !isSpace(b) || b == 0x7f || b == '"' || b == '\\'
}

func isHiddenOrSpace(b byte) bool { return isHidden(b) || isSpace(b) }

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\r' || b == '\n' }

// decodeWords decodes the encoded-words of RFC 2047 wherever they stand, and
// tells whether there were any. Unknown charsets are taken as they are.
func decodeWords(text string) (string, bool) {
	if !strings.Contains(text, "=?") {
		return "", false
	}
	d := mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }}
	decoded, err := d.DecodeHeader(text)
	return decoded, err == nil && decoded != text
}
