package dmarc

import (
	"slices"
	"strconv"
	"strings"
)

// maxURIs bounds the report addresses that a Record keeps of each kind.
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
// broken have their defaults; unknown tags are ignored.
type Record struct {
	P, SP, NP  Policy // "" when absent or broken
	StrictSPF  bool   // aspf=s
	StrictDKIM bool   // adkim=s
	PSD        PSD
	Test       bool     // t=y
	Percent    int      // pct, historic: 100 unless set; only MethodPSL looks at it
	FO         string   // fo as published, "0" by default
	RUA, RUF   []string // valid URIs, at most 16 each
	// Broken names the known tags whose value is invalid or that occur twice.
	Broken []string
}

// ParseRecord reads one TXT record. It is false for a text that is no DMARC
// record: v=DMARC1 must come first, the value with its case (RFC 9989 section
// 4.8); space may be around the "=" only. Any length, octets beyond ASCII and control characters are taken:
// they break the tag that they are in, and no other.
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

// cutVersion cuts "v=DMARC1" and its separator off.
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

// tagIndex finds a known tag; names are compared ignoring case, as the ABNF
// has it.
func tagIndex(name string) int {
	for i, known := range tagNames {
		if strings.EqualFold(name, known) {
			return i
		}
	}
	return -1
}

// set stores a tag and reports whether its value is valid.
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

// spoil puts a tag back to its default. A tag that occurs twice says nothing:
// which of the two is meant would be a guess.
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

// usable is the record as it is acted on: one without a valid policy is taken
// for p=none if it wants reports, and otherwise not at all (section 4.10.1).
func (r Record) usable() (Record, bool) {
	if r.P != "" && !slices.Contains(r.Broken, "sp") && !slices.Contains(r.Broken, "np") {
		return r, true
	}
	r.P, r.SP, r.NP = PolicyNone, "", ""
	return r, len(r.RUA) > 0
}

// forSubdomain is the policy for names below that of the record, which either
// exist or do not (section 4.10.1).
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

// parseURIs keeps the valid URIs of a list.
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

// validURI checks the generic form of RFC 3986: a scheme, a colon, and
// something of the characters that a URI may hold. An exclamation mark has to be
// encoded (RFC 9989 section 4.7); RFC 7489 put a size limit behind it.
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
