package sign

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/dkim"
)

// Fragile is why a signature will not survive the way to every receiver.
type Fragile string

// The causes.
const (
	FragileLine    Fragile = "long_line"    // Postfix breaks it
	Fragile8Bit    Fragile = "8bit"         // a relay without 8BITMIME encodes the body
	FragileHeader  Fragile = "8bit_header"  // relays rewrite such fields
	FragileAddress Fragile = "bare_address" // relays complete it
)

// Causes are all of them.
func Causes() []Fragile {
	return []Fragile{FragileLine, Fragile8Bit, FragileHeader, FragileAddress}
}

// fragility gathers what about a mail is fragile.
type fragility struct {
	lines lineMeter
	// watch is set when 8-bit octets in the body are a cause, because MIME does not
	// announce them.
	watch, eightBit bool
	header          string // the name of a signed field with octets beyond ASCII
	bare            string // the name of a signed field with an address without a domain
}

// fields checks a header, of which the fields with these names are signed.
func (f *fragility) fields(fields []dkim.Field, names []string) {
	f.watch = !declares8Bit(fields)
	for i := range fields {
		field := &fields[i]
		f.lines.field(*field)
		if f.header == "" && !ascii([]byte(field.Value)) && isNamed(field, names) {
			f.header = field.Name
		}
		if f.bare == "" && isBare(field) && isNamed(field, names) {
			f.bare = field.Name
		}
	}
}

func isNamed(field *dkim.Field, names []string) bool { return slices.ContainsFunc(names, field.Is) }

// body checks a piece of the body.
func (f *fragility) body(p []byte) {
	f.lines.Write(p)
	if f.watch && !f.eightBit {
		f.eightBit = !ascii(p)
	}
}

// ascii reports whether no octet has its highest bit set.
func ascii(p []byte) bool {
	const high = 0x8080808080808080
	for len(p) >= 32 { // more than twice as fast as word by word
		first := binary.LittleEndian.Uint64(p) | binary.LittleEndian.Uint64(p[8:])
		second := binary.LittleEndian.Uint64(p[16:]) | binary.LittleEndian.Uint64(p[24:])
		if (first|second)&high != 0 {
			return false
		}
		p = p[32:]
	}
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p)&high != 0 {
			return false
		}
		p = p[8:]
	}
	return !slices.ContainsFunc(p, func(b byte) bool { return b >= 0x80 })
}

// declares8Bit reports whether MIME says that the body may be 8-bit. In a body of
// several parts, each part has its own declaration.
func declares8Bit(fields []dkim.Field) bool {
	mime, announced := false, false
	for i := range fields {
		switch {
		case fields[i].Is("MIME-Version"):
			mime = true
		case fields[i].Is("Content-Transfer-Encoding"):
			announced = announced || begins(fields[i].Value, "8bit", "binary")
		case fields[i].Is("Content-Type"):
			announced = announced || begins(fields[i].Value, "multipart/", "message/")
		}
	}
	return mime && announced
}

// begins reports whether a value begins with one of some texts in lower case.
func begins(value string, texts ...string) bool {
	value = strings.ToLower(strings.TrimSpace(value))
	return slices.ContainsFunc(texts, func(text string) bool { return strings.HasPrefix(value, text) })
}

// isBare reports whether a field of addresses has a single entry that is neither an
// address nor a group.
func isBare(field *dkim.Field) bool {
	if !slices.ContainsFunc([]string{"To", "Cc", "Reply-To", "Sender"}, field.Is) {
		return false
	}
	value := strings.TrimSpace(field.Value)
	return value != "" && !strings.ContainsAny(value, "@:;")
}

// causes returns what was found, each with a note for the operator.
func (f *fragility) causes() (found []Fragile, notes []string) {
	add := func(cause Fragile, format string, args ...any) {
		found, notes = append(found, cause), append(notes, fmt.Sprintf(format, args...))
	}
	if n := f.lines.octets(); n > maxLine {
		add(FragileLine, "a line of %d octets: Postfix breaks it on the way (smtp_line_length_limit) and the signature with it", n)
	}
	if f.eightBit {
		add(Fragile8Bit, "octets beyond ASCII in a body that MIME does not declare as 8bit: a relay without 8BITMIME changes it and breaks the signature; declare it, or set force_mime_input_conversion = yes (Postfix 3.9)")
	}
	if f.header != "" {
		add(FragileHeader, "octets beyond ASCII in %.70s without SMTPUTF8: relays rewrite them and break the signature; encode them (RFC 2047)", f.header)
	}
	if f.bare != "" {
		add(FragileAddress, "%.70s has an address without a domain: relays complete it and break the signature; write user@domain", f.bare)
	}
	return found, notes
}
