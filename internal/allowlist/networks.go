package allowlist

import "net/netip"

// Networks are the networks of a flag.
type Networks []netip.Prefix

// Has reports whether an address is in one of the networks.
func (n Networks) Has(client netip.Addr) bool {
	client = client.Unmap().WithZone("")
	for _, network := range n {
		if network.Contains(client) {
			return true
		}
	}
	return false
}
