package dmarc

import (
	"slices"
	"strconv"
	"strings"
)

// maxURIs is how many report addresses of each kind a Record keeps.
const maxURIs = 16

// PSD is the value of the psd tag.
type PSD string

// The values.
const (
	PSDUnknown PSD = "u" // the walk decides
	PSDYes     PSD = "y" // a public suffix
	PSDNo      PSD = "n" // an organizational domain
)

// Record is a policy record (RFC 9989 section 4.7). Tags that are absent or
// broken have their default values. Unknown tags are ignored.
type Record struct {
	P, SP, NP  Policy // "" if absent or broken
	StrictSPF  bool   // aspf=s
	StrictDKIM bool   // adkim=s
	PSD        PSD
	Test       bool     // t=y
	Percent    int      // pct, historic: 100 unless set; used only by MethodPSL
	FO         string   // fo as published, "0" by default
	RUA, RUF   []string // valid URIs, at most 16 each
	// Broken has the names of the known tags with an invalid value, and of those
	// that occur twice.
	Broken []string
}

// ParseRecord parses one TXT record. It returns false for a text that is no
// DMARC record. The text must begin with v=DMARC1; the value is case-sensitive
// (RFC 9989 section 4.8), and only around "=" there may be space. The text may
// have any length, octets beyond ASCII and control characters. Those make only
// the tag broken that they are in.
func ParseRecord(text string) (Record, bool) {
	r := Record{PSD: PSDUnknown, Percent: 100, FO: "0"}
	rest, ok := cutVersion(text)
	if !ok {
		return r, false
	}
	var seen [len(tagNames)]bool
	for spec := range strings.SplitSeq(rest, ";") {
		name, value, _ := strings.Cut(spec, "=")
		i := tagIndex(trimWSP(name))
		if i < 0 {
			continue
		}
		if seen[i] || !r.set(tagNames[i], trimWSP(value)) {
			r.spoil(tagNames[i])
		}
		seen[i] = true
	}
	return r, true
}

// cutVersion removes "v=DMARC1" and its separator.
func cutVersion(text string) (rest string, ok bool) {
	if text == "" || text[0]|0x20 != 'v' {
		return "", false
	}
	if rest, ok = strings.CutPrefix(strings.TrimLeft(text[1:], " \t"), "="); !ok {
		return "", false
	}
	if rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " \t"), "DMARC1"); !ok {
		return "", false
	}
	rest = trimWSP(rest)
	return rest, rest == "" || rest[0] == ';'
}

var tagNames = [...]string{"p", "sp", "np", "adkim", "aspf", "psd", "t", "fo", "rua", "ruf", "pct"}

// tagIndex finds a known tag. As in the ABNF, names are not case-sensitive.
func tagIndex(name string) int {
	for i, known := range tagNames {
		if strings.EqualFold(name, known) {
			return i
		}
	}
	return -1
}

// set sets a tag and reports whether its value is valid.
func (r *Record) set(tag, value string) (ok bool) {
	switch tag {
	case "p":
		r.P, ok = parsePolicy(value)
	case "sp":
		r.SP, ok = parsePolicy(value)
	case "np":
		r.NP, ok = parsePolicy(value)
	case "adkim":
		r.StrictDKIM, ok = parseFlag(value, "s", "r")
	case "aspf":
		r.StrictSPF, ok = parseFlag(value, "s", "r")
	case "t":
		r.Test, ok = parseFlag(value, "y", "n")
	case "psd":
		psd := PSD(strings.ToLower(value))
		if ok = psd == PSDYes || psd == PSDNo || psd == PSDUnknown; ok {
			r.PSD = psd
		}
	case "fo":
		if ok = validFO(value); ok {
			r.FO = strings.ToLower(value)
		}
	case "rua":
		r.RUA = parseURIs(value)
		ok = len(r.RUA) > 0
	case "ruf":
		r.RUF = parseURIs(value)
		ok = len(r.RUF) > 0
	case "pct":
		n, err := strconv.ParseUint(value, 10, 8)
		if ok = err == nil && n <= 100; ok {
			r.Percent = int(n)
		}
	}
	return ok
}

// spoil sets a tag to its default value. A tag that occurs twice is not used,
// because it is unknown which of the two is meant.
func (r *Record) spoil(tag string) {
	switch tag {
	case "p":
		r.P = ""
	case "sp":
		r.SP = ""
	case "np":
		r.NP = ""
	case "adkim":
		r.StrictDKIM = false
	case "aspf":
		r.StrictSPF = false
	case "t":
		r.Test = false
	case "psd":
		r.PSD = PSDUnknown
	case "fo":
		r.FO = "0"
	case "rua":
		r.RUA = nil
	case "ruf":
		r.RUF = nil
	case "pct":
		r.Percent = 100
	}
	if !slices.Contains(r.Broken, tag) {
		r.Broken = append(r.Broken, tag)
	}
}

// usable returns the record in the form that is used. A record without a valid
// policy counts as p=none if it asks for reports; otherwise it is not used
// (section 4.10.1).
func (r Record) usable() (Record, bool) {
	if r.P != "" && !slices.Contains(r.Broken, "sp") && !slices.Contains(r.Broken, "np") {
		return r, true
	}
	r.P, r.SP, r.NP = PolicyNone, "", ""
	return r, len(r.RUA) > 0
}

// forSubdomain returns the policy for names below that of the record. It
// depends on whether they exist (section 4.10.1).
func (r Record) forSubdomain(exists bool) Policy {
	switch {
	case !exists && r.NP != "":
		return r.NP
	case r.SP != "":
		return r.SP
	}
	return r.P
}

func parsePolicy(value string) (Policy, bool) {
	switch p := Policy(strings.ToLower(value)); p {
	case PolicyNone, PolicyQuarantine, PolicyReject:
		return p, true
	}
	return "", false
}

func parseFlag(value, set, unset string) (on, ok bool) {
	on = strings.EqualFold(value, set)
	return on, on || strings.EqualFold(value, unset)
}

func validFO(value string) bool {
	if len(value) > len("1:d:s") {
		return false
	}
	for option := range strings.SplitSeq(strings.ToLower(value), ":") {
		if len(option) != 1 || !strings.Contains("01ds", option) {
			return false
		}
	}
	return true
}

// parseURIs returns the valid URIs of a list.
func parseURIs(value string) []string {
	var list []string
	for uri := range strings.SplitSeq(value, ",") {
		uri = trimWSP(uri)
		if validURI(uri) && len(list) < maxURIs {
			list = append(list, uri)
		}
	}
	return list
}

// validURI checks for the generic form of RFC 3986: a scheme, a colon, and
// characters that a URI may contain. An exclamation mark must be encoded (RFC
// 9989 section 4.7), because in RFC 7489 a size limit follows it.
func validURI(uri string) bool {
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok || scheme == "" || rest == "" || !isAlpha(scheme[0]) {
		return false
	}
	for _, b := range []byte(scheme) {
		if !isAlpha(b) && !isDigit(b) && b != '+' && b != '-' && b != '.' {
			return false
		}
	}
	for _, b := range []byte(rest) {
		if b <= ' ' || b >= 0x7f || strings.IndexByte("!\"<>\\^`{|}", b) >= 0 {
			return false
		}
	}
	return true
}

func isAlpha(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

func trimWSP(s string) string { return strings.Trim(s, " \t") }
