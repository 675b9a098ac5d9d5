package postconf

import (
	"net/netip"
	"strings"
)

var withoutBrackets = strings.NewReplacer("[", "", "]", "")

// Network parses an element of mynetworks, or of a list like it: a network or an address,
// of IPv6 with or without brackets. It is false for tables, names and "!".
func Network(element string) (netip.Prefix, bool) {
	text := withoutBrackets.Replace(element)
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(addr, addr.BitLen()), true
	}
	network, err := netip.ParsePrefix(text)
	return network, err == nil
}
