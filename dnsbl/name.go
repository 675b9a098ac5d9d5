package dnsbl

import (
	"net/netip"
	"strconv"
	"strings"
)

// Lengths of RFC 1035 section 2.3.4, a name without its last dot.
const (
	maxLabel = 63
	maxName  = 253
)

// Reversed returns the labels under which a list holds an address: the octets of an
// IPv4 address, the 32 nibbles of an IPv6 address, last one first (RFC 5782
// sections 2.1 and 2.4). An IPv4-mapped IPv6 address is an IPv6 address here.
func Reversed(addr netip.Addr) string {
	if addr.Is4() {
		b := addr.As4()
		out := make([]byte, 0, len("255.255.255.255"))
		for i := len(b) - 1; i >= 0; i-- {
			out = strconv.AppendUint(out, uint64(b[i]), 10)
			out = append(out, '.')
		}
		return string(out[:len(out)-1])
	}
	const hex = "0123456789abcdef"
	b := addr.As16()
	var out [64]byte
	for i, c := range b {
		at := len(out) - 4*(i+1)
		out[at], out[at+1], out[at+2], out[at+3] = hex[c&15], '.', hex[c>>4], '.'
	}
	return string(out[:len(out)-1])
}

// AskableAddress reports whether lists can hold an address: it is a public address,
// not one of a private network (RFC 1918, RFC 4193, RFC 6598), of this link or of
// this machine. Addresses of the documentation networks are asked about, so that
// one can try it out.
func AskableAddress(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsValid() && !addr.IsPrivate() && !addr.IsLoopback() && !addr.IsUnspecified() &&
		!addr.IsLinkLocalUnicast() && !addr.IsMulticast() && addr.Zone() == "" && !reserved(addr)
}

// reserved reports whether no client on the internet can have an IPv4 address (RFC
// 6890): "this network", shared address space of providers, benchmarking, and
// future use.
func reserved(addr netip.Addr) bool {
	if !addr.Is4() {
		return false
	}
	b := addr.As4()
	return b[0] == 0 || b[0] == 100 && b[1]&0xc0 == 64 || b[0] == 198 && b[1]&0xfe == 18 || b[0] >= 240
}

// AskableName reports whether lists of domains can hold a name, which is in lower
// case and A-labels. It must be a host name of at least two labels, the last one
// not a number, and not in the reverse trees. Lists of domains answer questions
// about addresses with an error code. They also hold the test entry "test", which
// any client may send in HELO.
func AskableName(name string) bool {
	if !isHostname(name) {
		return false
	}
	dot := strings.LastIndexByte(name, '.')
	return dot > 0 && !isNumber(name[dot+1:]) && name[dot+1:] != "arpa"
}

func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// isHostname accepts the underscore, as Postfix does.
func isHostname(name string) bool {
	if len(name) > maxName {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			switch c := label[i]; {
			case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	return true
}
