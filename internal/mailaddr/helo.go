package mailaddr

import (
	"net/netip"
	"strings"
)

// ParseHeloLiteral parses a HELO argument that is an address literal (RFC 5321
// section 4.1.3), "[192.0.2.1]" or "[IPv6:2001:db8::1]". It also accepts an
// IPv6 address without its tag, as some clients write it. ok is false for
// anything else.
func ParseHeloLiteral(helo string) (addr netip.Addr, ok bool) {
	inner, opened := strings.CutPrefix(helo, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if !opened || !closed {
		return netip.Addr{}, false
	}
	const tag = "IPv6:"
	if len(inner) > len(tag) && strings.EqualFold(inner[:len(tag)], tag) {
		inner = inner[len(tag):]
	}
	addr, err := netip.ParseAddr(inner)
	return addr.Unmap(), err == nil
}

// LooksNumeric reports whether a HELO argument is a mistyped or shortened
// address, not a name.
func LooksNumeric(name string) bool { return strings.Trim(name, "0123456789.") == "" }
