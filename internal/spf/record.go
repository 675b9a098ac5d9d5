package spf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// record is a parsed policy (RFC 7208 section 4.6.1).
type record struct {
	directives []directive
	redirect   *macroString
	exp        *macroString
}

// directive is a mechanism with its qualifier.
type directive struct {
	text    string // as published
	kind    Kind
	status  Status       // the result of a match
	target  *macroString // nil: the current domain
	network netip.Prefix // ip4, ip6
	bits4   int          // a, mx: prefix length for IPv4
	bits6   int          // a, mx: for IPv6
}

const version = "v=spf1"

// The reasons why a domain has no usable policy.
var (
	errNoRecord    = errors.New("no SPF record")
	errManyRecords = errors.New("more than one SPF record")
	errRecordSize  = fmt.Errorf("record longer than %d bytes", maxRecord)
	errRecordChar  = errors.New("a character that is not printable US-ASCII")
)

// selectRecord picks the policy from the TXT records of a domain (RFC 7208 section
// 4.5): it begins with "v=spf1", followed by a blank or the end.
func selectRecord(txts []string) (string, error) {
	found, n := "", 0
	for _, txt := range txts {
		if len(txt) < len(version) || !strings.EqualFold(txt[:len(version)], version) {
			continue
		}
		if len(txt) > len(version) && txt[len(version)] != ' ' {
			continue
		}
		found, n = txt, n+1
	}
	switch {
	case n == 0:
		return "", errNoRecord
	case n > 1:
		return "", errManyRecords
	case len(found) > maxRecord:
		return "", errRecordSize
	}
	return found, nil
}

// parseRecord parses a selected record as a whole. Any error is a permerror.
func parseRecord(text string) (*record, error) {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return nil, errRecordChar
		}
	}
	rec := &record{directives: make([]directive, 0, 8)}
	for term := range strings.SplitSeq(text[len(version):], " ") {
		if term == "" {
			continue
		}
		if err := rec.parseTerm(term); err != nil {
			return nil, fmt.Errorf("term %.80q: %w", term, err)
		}
	}
	return rec, nil
}

// parseTerm parses one term. Its name is the text before the first of ":", "/" and "=". A
// "=" makes it a modifier.
func (rec *record) parseTerm(term string) error {
	if i := strings.IndexAny(term, ":/="); i >= 0 && term[i] == '=' {
		return rec.addModifier(term[:i], term[i+1:])
	}
	d := directive{text: term, status: Pass}
	switch term[0] {
	case '+':
		term = term[1:]
	case '-':
		d.status, term = Fail, term[1:]
	case '~':
		d.status, term = SoftFail, term[1:]
	case '?':
		d.status, term = Neutral, term[1:]
	}
	name, arg := term, ""
	if i := strings.IndexAny(term, ":/"); i >= 0 {
		name, arg = term[:i], term[i:]
	}
	if err := d.parse(name, arg); err != nil {
		return err
	}
	rec.directives = append(rec.directives, d)
	return nil
}

// addModifier parses redirect=, exp= and others (RFC 7208 section 6). An
// unknown modifier is ignored, once its syntax is right.
func (rec *record) addModifier(name, value string) error {
	place := (**macroString)(nil)
	switch {
	case strings.EqualFold(name, "redirect"):
		place = &rec.redirect
	case strings.EqualFold(name, "exp"):
		place = &rec.exp
	case !modifierName(name):
		return errors.New("bad modifier name")
	default:
		_, err := parseMacros(value, inUnknown)
		return err
	}
	if *place != nil {
		return errors.New("given twice")
	}
	spec, err := parseDomainSpec(value)
	*place = spec
	return err
}

// modifierName reports whether s is the name of a modifier: a letter, then letters,
// digits, "-", "_" and ".".
func modifierName(s string) bool {
	if s == "" || !isAlpha(s[0]) {
		return false
	}
	return hostChars(s)
}

// parse reads the argument of a mechanism. It begins with ":" or "/".
func (d *directive) parse(name, arg string) (err error) {
	d.kind = Kind(strings.ToLower(name))
	switch d.kind {
	case KindAll:
		if arg != "" {
			return errors.New("all takes no argument")
		}
	case KindInclude, KindExists:
		if arg == "" {
			return errors.New("domain missing")
		}
		d.target, err = parseTarget(arg)
	case KindPTR:
		d.target, err = parseTarget(arg)
	case KindA, KindMX:
		if arg, d.bits4, d.bits6, err = cutDualCIDR(arg); err == nil {
			d.target, err = parseTarget(arg)
		}
	case KindIP4:
		d.network, err = parseNetwork(arg, netip.Addr.Is4)
	case KindIP6:
		d.network, err = parseNetwork(arg, netip.Addr.Is6)
	default:
		return errors.New("unknown mechanism")
	}
	return err
}

// parseTarget reads [ ":" domain-spec ].
func parseTarget(arg string) (*macroString, error) {
	if arg == "" {
		return nil, nil
	}
	if arg[0] != ':' {
		return nil, errors.New("prefix length not allowed here, or malformed")
	}
	return parseDomainSpec(arg[1:])
}

// cutDualCIDR cuts [ "/" number ] [ "//" number ] off the end. This is not
// ambiguous, because no domain-spec can end in a slash and digits.
func cutDualCIDR(arg string) (rest string, bits4, bits6 int, err error) {
	bits4, bits6 = 32, 128
	if i := strings.LastIndex(arg, "//"); i >= 0 && allDigits(arg[i+2:]) {
		if bits6, err = prefixLength(arg[i+2:], 128); err != nil {
			return "", 0, 0, err
		}
		arg = arg[:i]
	}
	if i := strings.LastIndexByte(arg, '/'); i >= 0 && allDigits(arg[i+1:]) {
		if bits4, err = prefixLength(arg[i+1:], 32); err != nil {
			return "", 0, 0, err
		}
		arg = arg[:i]
	}
	return arg, bits4, bits6, nil
}

// parseNetwork reads ":" address [ "/" number ] of one family.
func parseNetwork(arg string, family func(netip.Addr) bool) (netip.Prefix, error) {
	if len(arg) < 2 || arg[0] != ':' {
		return netip.Prefix{}, errors.New("address missing")
	}
	text, length, hasLength := strings.Cut(arg[1:], "/")
	addr, err := netip.ParseAddr(text)
	if err != nil || !family(addr) || addr.Zone() != "" {
		return netip.Prefix{}, errors.New("malformed address")
	}
	bits := addr.BitLen()
	if hasLength {
		if bits, err = prefixLength(length, addr.BitLen()); err != nil {
			return netip.Prefix{}, err
		}
	}
	return netip.PrefixFrom(addr, bits).Masked(), nil
}

// prefixLength reads a decimal number from 0 to limit without leading zeros.
func prefixLength(s string, limit int) (int, error) {
	if !allDigits(s) || len(s) > 3 || len(s) > 1 && s[0] == '0' {
		return 0, errors.New("malformed prefix length")
	}
	n, err := strconv.Atoi(s)
	if err != nil || n > limit {
		return 0, errors.New("prefix length out of range")
	}
	return n, nil
}

func allDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
