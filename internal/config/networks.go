package config

import (
	"fmt"
	"net/netip"
)

// Networks parses the values of a flag that takes networks.
func (s *Set) Networks(flag string, values []string) ([]netip.Prefix, error) {
	var l problems
	var networks []netip.Prefix
	for i, text := range values {
		network, err := ParseNetwork(text)
		if err != nil {
			l.addError(s.ErrorfAt(flag, i, "%w", err))
		}
		networks = append(networks, network)
	}
	return networks, l.err()
}

// ParseNetwork parses a network or a single address. Bits after the mask are an
// error, as in mynetworks.
func ParseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a network: write 192.0.2.0/24 or 2001:db8::/32", text)
	}
	if masked := network.Masked(); masked != network {
		return netip.Prefix{}, fmt.Errorf("%q has bits set behind its mask: write %s", text, masked)
	}
	return network, nil
}
