package dnsbl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// SelfTest describes how a zone is tested.
type SelfTest struct {
	// Off: the zone is not tested. Refusals and silence still put it out of
	// service; after some time it is asked again.
	Off bool
	// Listed are entries that a working zone holds, of which one must be listed:
	// addresses, or names in lower case without the last dot. Empty: the known
	// entries of the zone, or else those that RFC 5782 section 5 requires of every
	// list.
	Listed []string
}

// selfTestOff is the word for SelfTest.Off.
const selfTestOff = "off"

// maxTests bounds the entries of a SelfTest.
const maxTests = 8

// ParseSelfTest reads ZONE=off or ZONE=ENTRY,ENTRY. An error names the part and the
// fix.
func ParseSelfTest(text string) (zone string, t SelfTest, err error) {
	name, value, ok := strings.Cut(text, "=")
	zone = strings.ToLower(strings.TrimSuffix(name, "."))
	if !ok || !isHostname(zone) || len(text) > maxSite {
		return "", t, fmt.Errorf("%q: write ZONE=off, or ZONE=ENTRY,ENTRY with entries that the list always holds", text)
	}
	if value == selfTestOff {
		return zone, SelfTest{Off: true}, nil
	}
	for entry := range strings.SplitSeq(value, ",") {
		entry = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(entry), "."))
		if _, err := netip.ParseAddr(entry); err != nil && !isHostname(entry) {
			return "", t, fmt.Errorf("%s: %q is no test entry: write an address or a name that the list always holds, or off", zone, entry)
		}
		t.Listed = append(t.Listed, entry)
	}
	if len(t.Listed) > maxTests {
		return "", t, fmt.Errorf("%s: %d test entries; %d are enough", zone, len(t.Listed), maxTests)
	}
	return zone, t, nil
}

// HasZone reports whether a zone is among the sites, under any of its names.
func HasZone(sites []Site, zone string) bool {
	return slices.ContainsFunc(sites, func(s Site) bool { return publicName(s.Zone) == publicName(zone) })
}

// setSelfTests sets the self-tests of the zones.
func (l *Lists) setSelfTests() {
	for name, t := range l.config.SelfTests {
		for _, z := range l.zones() {
			if z.public == publicName(name) {
				z.tests = t
			}
		}
	}
}
