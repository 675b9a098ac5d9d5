package dnsbl

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of a site.
const (
	maxWeight   = 1000
	maxSite     = 512 // bytes of its spelling
	maxZoneName = 160 // leaves room for 32 nibbles and a key
)

// Site is a list with its filter and weight, written as in postscreen_dnsbl_sites.
type Site struct {
	Zone   string // lower case, without the last dot; the public name
	Filter Filter
	Weight int
}

// ParseSite reads domain[=filter][*weight]. The filter has four octets, each a
// number or a list in brackets of numbers and ranges: 127.0.0.[2..11;30]. The
// weight is from -1000 to 1000, by default 1. A negative weight allows, 0 only
// records. An error names the part and the fix.
func ParseSite(text string) (Site, error) {
	if len(text) > maxSite {
		return Site{}, fmt.Errorf("a list of more than %d bytes", maxSite)
	}
	rest, weight, weighted := strings.Cut(text, "*")
	zone, filter, filtered := strings.Cut(rest, "=")
	s := Site{Zone: strings.ToLower(strings.TrimSuffix(zone, ".")), Weight: 1}
	if !isHostname(s.Zone) || len(s.Zone) > maxZoneName || isNumber(s.Zone[strings.LastIndexByte(s.Zone, '.')+1:]) {
		return Site{}, fmt.Errorf("%q is not the name of a list: write it as zen.spamhaus.org=127.0.0.[2..11]*1, one list a setting", zone)
	}
	var err error
	if filtered {
		if s.Filter, err = parseFilter(filter); err != nil {
			return Site{}, fmt.Errorf("%s: filter %q: %w", s.Zone, filter, err)
		}
	}
	if weighted {
		if s.Weight, err = strconv.Atoi(weight); err != nil || s.Weight < -maxWeight || s.Weight > maxWeight {
			return Site{}, fmt.Errorf("%s: weight %q is not a whole number within -%d and %d", s.Zone, weight, maxWeight, maxWeight)
		}
	}
	return s, nil
}

// String returns the site in the form that ParseSite reads.
func (s Site) String() string {
	out := s.Zone
	if s.Filter.text != "" {
		out += "=" + s.Filter.text
	}
	return out + "*" + strconv.Itoa(s.Weight)
}

// Filter holds which answers count. The zero Filter means that there is no filter.
type Filter struct {
	text   string
	octets [4]octetSet
}

type octetSet [4]uint64

func (o *octetSet) add(n int)       { o[n/64] |= 1 << (n % 64) }
func (o *octetSet) has(n byte) bool { return o[n/64]&(1<<(n%64)) != 0 }
func (f *Filter) isNone() bool      { return f.text == "" }
func (f *Filter) String() string    { return f.text }
func (f *Filter) matches4(b [4]byte) bool {
	for i := range b {
		if !f.octets[i].has(b[i]) {
			return false
		}
	}
	return true
}

// Matches reports whether an answer passes the filter.
func (f *Filter) Matches(answer netip.Addr) bool {
	return answer.Is4() && !f.isNone() && f.matches4(answer.As4())
}

// within127 reports whether the filter can match any answer of a list.
func (f *Filter) within127() bool { return f.isNone() || f.octets[0].has(127) }

var (
	errFour   = errors.New("write four octets, as 127.0.0.[2..11;30]")
	errOctet  = errors.New("an octet is a number within 0 and 255, or a list in brackets")
	errOpen   = errors.New("a bracket is not closed")
	errRange  = errors.New("a range goes from the lower number to the higher one")
	errNot127 = errors.New("lists answer within 127.0.0.0/8 only: this can never match")
)

func parseFilter(text string) (Filter, error) {
	f := Filter{text: text}
	rest := text
	for i := range f.octets {
		var err error
		if rest, err = f.octets[i].parse(rest); err != nil {
			return Filter{}, err
		}
		if i == len(f.octets)-1 {
			break
		}
		if !strings.HasPrefix(rest, ".") {
			return Filter{}, errFour
		}
		rest = rest[1:]
	}
	switch {
	case rest != "":
		return Filter{}, errFour
	case !f.within127():
		return Filter{}, errNot127
	}
	return f, nil
}

// parse reads one octet of the text and returns the rest.
func (o *octetSet) parse(text string) (string, error) {
	if strings.HasPrefix(text, "[") {
		list, rest, ok := strings.Cut(text[1:], "]")
		if !ok {
			return "", errOpen
		}
		for item := range strings.SplitSeq(list, ";") {
			if err := o.addRange(item); err != nil {
				return "", err
			}
		}
		return rest, nil
	}
	end := strings.IndexByte(text, '.')
	if end < 0 {
		end = len(text)
	}
	n, err := parseOctet(text[:end])
	if err != nil {
		return "", err
	}
	o.add(n)
	return text[end:], nil
}

func (o *octetSet) addRange(item string) error {
	from, to, ranged := strings.Cut(item, "..")
	low, err := parseOctet(from)
	high := low
	if err == nil && ranged {
		high, err = parseOctet(to)
	}
	if err != nil {
		return err
	}
	if high < low {
		return errRange
	}
	for n := low; n <= high; n++ {
		o.add(n)
	}
	return nil
}

func parseOctet(s string) (int, error) {
	if !isNumber(s) || len(s) > 3 {
		return 0, errOctet
	}
	n, err := strconv.Atoi(s)
	if err != nil || n > 255 {
		return 0, errOctet
	}
	return n, nil
}
