package sign

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/dkim"
)

// Bounds of h=.
const (
	// maxInstances is how many fields of one name are signed.
	maxInstances = 10
	// maxHeaderNames bounds the configured names.
	maxHeaderNames = 100
	maxHeaderName  = 70 // octets: a name has to fit into a folded line
)

// Headers is the list of header fields that are signed.
type Headers struct {
	names []headerName
	index map[string]int // of names, by name in lower case
}

type headerName struct {
	name string
	mode oversign
}

// oversign says when h= lists a name once more than the mail has such fields. Then a
// field of this name that is added on the way breaks the signature.
type oversign uint8

const (
	never     oversign = iota // "Name"
	ifPresent                 // "?Name": relays add it to mail that has none
	always                    // "+Name"
)

// DefaultHeaders returns the list of RFC 6376 section 5.4.1 and the fields that say
// how the body is read. A field is oversigned when a second one would change what a
// reader sees (section 8.15). Relays add some fields to mail that has none (RFC 6409
// section 8), so the absence of these is not signed. Content-Transfer-Encoding is
// left out: a relay rewrites it for a next hop without 8BITMIME, even if the body
// does not change.
func DefaultHeaders() []string {
	return []string{
		"+From", "+To", "+Cc", "+Subject", "+Reply-To", "?Date", "?Message-ID",
		"?MIME-Version", "?Content-Type", "Content-ID",
		"Content-Description", "Content-Disposition", "Sender", "In-Reply-To", "References",
		"Resent-Date", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Message-ID",
		"List-Id", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post",
		"List-Subscribe", "List-Post", "List-Owner", "List-Archive", "Autocrypt",
	}
}

// unsignable lists, in lower case, the fields that relays add or change on the way.
func unsignable() []string {
	return []string{
		"received", "return-path", "delivered-to", "authentication-results", "received-spf", "dkim-signature",
		"arc-seal", "arc-message-signature", "arc-authentication-results", "bcc", "resent-bcc",
		"dkim2-signature", "message-instance", // hops of DKIM2 add them
	}
}

// ParseHeaders reads a list of field names. Each is signed if a mail has it. A "+"
// before a name oversigns it; a "?" oversigns it only in mail that has the field.
// From is always oversigned. An empty list means DefaultHeaders.
func ParseHeaders(list []string) (Headers, error) {
	if len(list) == 0 {
		list = DefaultHeaders()
	}
	if len(list) > maxHeaderNames {
		return Headers{}, fmt.Errorf("more than %d header fields to sign", maxHeaderNames)
	}
	h := Headers{names: []headerName{{"From", always}}, index: map[string]int{"from": 0}}
	for _, item := range list {
		name, mode := cutMode(item)
		if err := checkName(name); err != nil {
			return Headers{}, err
		}
		lower := strings.ToLower(name)
		if lower == "from" {
			continue
		}
		if _, ok := h.index[lower]; ok {
			return Headers{}, fmt.Errorf("header field %q is listed twice", name)
		}
		h.index[lower] = len(h.names)
		h.names = append(h.names, headerName{name, mode})
	}
	return h, nil
}

func cutMode(item string) (name string, mode oversign) {
	if name, ok := strings.CutPrefix(item, "+"); ok {
		return name, always
	}
	if name, ok := strings.CutPrefix(item, "?"); ok {
		return name, ifPresent
	}
	return item, never
}

func checkName(name string) error {
	if name == "" || len(name) > maxHeaderName {
		return fmt.Errorf("%q is not the name of a header field", name)
	}
	for _, b := range []byte(name) {
		if b <= ' ' || b >= 0x7f || b == ':' || b == ';' || b == '+' || b == '?' {
			return fmt.Errorf("%q is not the name of a header field", name)
		}
	}
	if slices.Contains(unsignable(), strings.ToLower(name)) {
		return fmt.Errorf("header field %q changes on the way and cannot be signed", name)
	}
	return nil
}

// pick returns the names for h= and the canonical form of the fields they name,
// as a verifier will pick them: for each name, from the lowest field up.
func (h Headers) pick(fields []dkim.Field) (names []string, canonical []byte) {
	last, above := h.chains(fields)
	names = make([]string, 0, 2*len(h.names))
	canonical = make([]byte, 0, fieldSize)
	for n, name := range h.names {
		i, taken := last[n], 0
		for ; i >= 0 && taken < maxInstances; i = above[i] {
			names = append(names, name.name)
			canonical = dkim.AppendField(canonical, dkim.Relaxed, fields[i])
			taken++
		}
		// If fields are left over, one more name would mean one of them.
		if i < 0 && h.oversigned(n, last) {
			names = append(names, name.name)
		}
	}
	return names, canonical
}

// oversigned reports whether h= lists a name once more than there are fields. last is
// the result of chains. Relays add "To: undisclosed-recipients:;" to mail that names
// no recipient, so To is not oversigned in mail without To and Cc.
func (h Headers) oversigned(n int, last []int) bool {
	switch h.names[n].mode {
	case never:
		return false
	case ifPresent:
		return last[n] >= 0
	}
	if last[n] >= 0 || !strings.EqualFold(h.names[n].name, "To") {
		return true
	}
	cc, ok := h.index["cc"]
	return !ok || last[cc] >= 0
}

// chains returns, for each name, the index of its lowest field, and for each
// field that of the next one above it of the same name; -1 ends a chain.
func (h Headers) chains(fields []dkim.Field) (last, above []int) {
	last = slices.Repeat([]int{-1}, len(h.names))
	above = make([]int, len(fields))
	var lower [maxHeaderName]byte
	for i, f := range fields {
		n, ok := h.index[string(lowerName(lower[:0], f.Name))]
		if ok {
			above[i], last[n] = last[n], i
		}
	}
	return last, above
}

// lowerName appends name in lower case, without the white space after it, to
// buf; it appends nothing for a name that is too long to be listed.
func lowerName(buf []byte, name string) []byte {
	name = strings.TrimRight(name, " \t")
	if len(name) > maxHeaderName {
		return buf
	}
	for _, b := range []byte(name) {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		buf = append(buf, b)
	}
	return buf
}

// Has reports whether a field of this name is signed.
func (h Headers) Has(name string) bool {
	_, ok := h.index[strings.ToLower(name)]
	return ok
}
