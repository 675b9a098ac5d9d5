package author

import (
	"iter"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// element is one element of an address list, split at its angle brackets. Its
// parts have no comments, and white space is a single space.
type element struct {
	raw    string // as written
	before string // the text before "<", or all of it; quoted strings as written
	inside string
	after  string
	angle  bool
	broken bool // brackets, quotes or comments that do not match, stray octets
	stray  bool // it ends in a ":" or ";" where no group can be
	last   byte // the octet that ended it: ',', ';', ':', or 0 at the end of the field
}

// blank reports whether there is only white space and comments.
func (e *element) blank() bool {
	return !e.broken && !e.stray && !e.angle && e.before == ""
}

// form is the form of an element.
type form uint8

const (
	formAddress form = iota // an address with a domain
	formName                // well-formed, without a domain: a bare word, a group, "<>"
	formUnusual             // an address with a domain that some readers read differently
	formBroken
)

// mailbox returns the address of the element. A domain or local part that is
// unclear is empty. With formBroken, the address is only one of several
// readings.
func (e *element) mailbox() (Mailbox, form) {
	addr, name := e.before, ""
	if e.angle {
		addr, name = e.inside, e.before
	}
	broken := e.broken || e.stray || e.after != "" || hasBareAt(name)
	if !broken && e.last == ':' && !e.angle && !hasBareAt(addr) {
		return Mailbox{}, formName // the name of a group
	}
	m, f := parseAddress(addr)
	m.Name = name
	if broken || e.last == ':' {
		f = formBroken
	}
	return m, f
}

// parseAddress parses an address without its display name.
func parseAddress(addr string) (Mailbox, form) {
	at := strings.LastIndexByte(addr, '@')
	if at < 0 {
		return Mailbox{}, formName
	}
	local, domain := strings.TrimSpace(addr[:at]), strings.TrimSpace(addr[at+1:])
	if literal := mailaddr.Parse("x@" + domain); literal.IsLiteral() && literal.IsValid() && isLocal(local) {
		return Mailbox{}, formName
	}
	// Space around dots is obsolete syntax, and some readers stop there.
	parsed, err := mailaddr.ParseDomain(joinDots(domain))
	if err != nil {
		return Mailbox{}, formBroken
	}
	if !isLocal(local) {
		return Mailbox{Domain: parsed}, formUnusual
	}
	m := Mailbox{Local: local, Domain: parsed}
	if strings.Contains(domain, " ") {
		return m, formUnusual
	}
	return m, formAddress
}

// joinDots removes the space around dots.
func joinDots(domain string) string {
	if !strings.Contains(domain, " ") {
		return domain
	}
	return strings.ReplaceAll(strings.ReplaceAll(domain, " .", "."), ". ", ".")
}

// isLocal reports whether a local part is the same to every reader. It may be
// atoms and quoted strings between dots, but not an encoded-word. Space around
// the dots is obsolete and allowed. Octets beyond ASCII are those of RFC 6532.
func isLocal(local string) bool {
	if local == "" || strings.Contains(local, "=?") {
		return false
	}
	word := true // a word may begin
	for i := 0; i < len(local); i++ {
		switch b := local[i]; {
		case b == '"':
			end := mailaddr.QuoteEnd(local[i:])
			if !word || end < 0 {
				return false
			}
			i += end - 1
			word = false
		case b == '.':
			word = true
		case b == ' ':
			// Words must be separated by a dot.
			if next := local[i+1]; !word && next != '.' {
				return false
			}
		case strings.IndexByte("()<>[]:;@\\,", b) >= 0, b < ' ', b == 0x7f:
			return false
		default:
			word = false
		}
	}
	return true
}

// hasBareAt reports whether an "@" is outside of quoted strings and
// encoded-words. Every quote in s must have its end.
func hasBareAt(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			i += max(mailaddr.QuoteEnd(s[i:]), 1) - 1
		case '=':
			i += max(encodedWordEnd(s[i:]), 1) - 1
		case '@':
			return true
		}
	}
	return false
}

// maxEncodedWord is the longest encoded-word; RFC 2047 section 2 allows 75.
const maxEncodedWord = 256

// encodedWordEnd returns the length of the encoded-word at the start of s, or
// -1 if there is none. It is "=?", a charset, "?", an encoding, "?", a text and
// "?=", without space.
func encodedWordEnd(s string) int {
	s = s[:min(len(s), maxEncodedWord)]
	marks := 0
	for i := 1; i < len(s); i++ {
		switch {
		case isSpace(s[i]):
			return -1
		case s[i] == '?':
			marks++
			if marks == 4 && i+1 < len(s) && s[i+1] == '=' {
				return i + 2
			}
		case i == 1:
			return -1
		}
	}
	return -1
}

// elements splits a field at its commas and at the ":" and ";" of groups.
func elements(value string) iter.Seq[element] {
	return func(yield func(element) bool) {
		s := scanner{text: value}
		for {
			e := s.next()
			if !yield(e) || e.last == 0 {
				return
			}
		}
	}
}

// scanner reads a field from the left. It reads each octet once, or twice where
// a quoted string or a comment has no end.
type scanner struct {
	text  string
	pos   int
	group bool // between ":" and ";"
	open  bool // a quoted string or a comment was found to have no end
}

// next reads one element.
func (s *scanner) next() element {
	start := s.pos
	var e element
	var before, inside, after part
	current := &before
	for s.pos < len(s.text) {
		switch b := s.text[s.pos]; {
		case isSpace(b):
			current.space = true
			s.pos++
		case b == '(' || b == '"':
			s.enclosed(&e, current, b)
		case b == '<' && !e.angle:
			e.angle, current = true, &inside
			s.pos++
		case b == '>' && current == &inside:
			current = &after
			s.pos++
		case current != &inside && s.ends(b, &e):
			e.last = b
			return s.finish(e, start, before, inside, after)
		default:
			e.broken = e.broken || current.odd(b)
			end := s.pos + 1
			for end < len(s.text) && isDomainOctet(s.text[end]) {
				end++ // an octet without a special meaning
			}
			current.write(s.text[s.pos:end])
			s.pos = end
		}
	}
	e.broken = e.broken || current == &inside
	return s.finish(e, start, before, inside, after)
}

// ends reports whether b ends the element. It also keeps track of groups.
func (s *scanner) ends(b byte, e *element) bool {
	switch b {
	case ',':
		return true
	case ':':
		e.stray = e.stray || s.group
		s.group = true
		return true
	case ';':
		e.stray = e.stray || !s.group
		s.group = false
		return true
	}
	return false
}

func (s *scanner) finish(e element, start int, before, inside, after part) element {
	e.raw = s.text[start:s.pos]
	if e.last != 0 {
		s.pos++
	}
	e.before, e.inside, e.after = before.text.String(), inside.text.String(), after.text.String()
	return e
}

// enclosed reads a comment or a quoted string. If it has no end, the element is
// broken, and its first octet is read as an ordinary octet. The scanner
// searches for a missing end only once.
func (s *scanner) enclosed(e *element, p *part, b byte) {
	rest := s.text[s.pos:]
	end := -1
	if !s.open {
		if b == '(' {
			end = mailaddr.CommentEnd(rest)
		} else {
			end = mailaddr.QuoteEnd(rest)
		}
	}
	if end < 0 {
		s.open, e.broken = true, true
		end = 1
	} else if b == '(' {
		p.space = true
		s.pos += end
		return
	}
	e.broken = e.broken || strings.ContainsFunc(rest[:end], func(r rune) bool { return r == 0 })
	p.write(rest[:end])
	s.pos += end
}

// part is a part of an element, with white space folded into single spaces.
type part struct {
	text  strings.Builder
	space bool
}

func (p *part) write(s string) {
	if p.space && p.text.Len() > 0 {
		p.text.WriteByte(' ')
	}
	p.space = false
	p.text.WriteString(s)
}

// odd reports whether b is allowed only in quotes and comments.
func (p *part) odd(b byte) bool {
	return b < ' ' || b == 0x7f || b == '\\' || b == '<' || b == '>' || b == ')'
}
