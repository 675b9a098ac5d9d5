package resolver

import (
	"net/netip"
	"strings"
)

// publicNetworks are the open resolvers that DNS lists do not serve, by operator,
// and the resolvers of hosters whose customers all share one address. Spamhaus
// answers them with an error code or, worse, with NXDOMAIN.
var publicNetworks = [...]struct{ operator, networks string }{
	{"Google", "8.8.8.8/32 8.8.4.4/32 2001:4860:4860::/48"},
	{"Cloudflare", "1.1.1.0/24 1.0.0.0/24 2606:4700:4700::/48"},
	{"Quad9", "9.9.9.0/24 149.112.112.0/24 2620:fe::/48"},
	{"OpenDNS", "208.67.222.0/24 208.67.220.0/24 2620:119:35::/48 2620:119:53::/48 2620:0:ccc::/48 2620:0:ccd::/48"},
	{"AdGuard", "94.140.14.0/24 94.140.15.0/24 2a10:50c0::/32"},
	{"Lumen", "4.2.2.1/32 4.2.2.2/32 4.2.2.3/32 4.2.2.4/32 4.2.2.5/32 4.2.2.6/32 209.244.0.3/32 209.244.0.4/32"},
	{"Vercara", "64.6.64.6/32 64.6.65.6/32 156.154.70.0/24 156.154.71.0/24 2610:a1:1018::/48 2610:a1:1019::/48 2620:74:1b::/48 2620:74:1c::/48"},
	{"CleanBrowsing", "185.228.168.0/24 185.228.169.0/24 2a0d:2a00:1::/48 2a0d:2a00:2::/48"},
	{"Control D", "76.76.2.0/24 76.76.10.0/24 2606:1a40::/48 2606:1a40:1::/48"},
	{"Comodo", "8.26.56.26/32 8.20.247.20/32"},
	{"DNS.WATCH", "84.200.69.80/32 84.200.70.40/32 2001:1608:10:25::/64"},
	{"DNS.SB", "185.222.222.222/32 45.11.45.11/32 2a09::/128 2a11::/128"},
	{"DNS4EU", "86.54.11.0/24"},
	{"Mullvad", "194.242.2.0/24 2a07:e340::/32"},
	{"Yandex", "77.88.8.0/24 2a02:6b8::feed:0/112 2a02:6b8:0:1::feed:0/112"},
	{"AliDNS", "223.5.5.5/32 223.6.6.6/32 2400:3200::1/128 2400:3200:baba::1/128"},
	{"DNSPod", "119.29.29.29/32 119.28.28.28/32"},
	{"114DNS", "114.114.114.0/24 114.114.115.0/24"},
	{"Hetzner", "185.12.64.1/32 185.12.64.2/32 2a01:4ff:ff00::add:1/128 2a01:4ff:ff00::add:2/128"},
	{"DigitalOcean", "67.207.67.2/32 67.207.67.3/32"},
	{"Microsoft Azure", "168.63.129.16/32"},
}

// PublicResolver returns the operator of a resolver that many unrelated people
// share, or "". Lists such as Spamhaus refuse such resolvers, so daemons warn
// at start.
func PublicResolver(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	for _, p := range publicNetworks {
		for n := range strings.FieldsSeq(p.networks) {
			if netip.MustParsePrefix(n).Contains(addr) {
				return p.operator
			}
		}
	}
	return ""
}
