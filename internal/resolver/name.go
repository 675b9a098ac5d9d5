package resolver

import (
	"fmt"
	"net/netip"
	"strings"
)

// Lengths of RFC 1035 section 2.3.4, the name without its last dot.
const (
	maxLabel = 63
	maxName  = 253
)

// canonical returns name in lower case without the last dot ("" for the root), or
// an error when no query can carry it. Labels may hold any byte except a dot,
// because SPF macros and DNSBL names need not be host names.
func canonical(name string) (string, error) {
	if name == "." {
		return "", nil
	}
	name = strings.TrimSuffix(name, ".")
	if len(name) > maxName {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrBadName, maxName)
	}
	upper, start := false, 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '.' {
			upper = upper || 'A' <= name[i] && name[i] <= 'Z'
			continue
		}
		if i == start {
			return "", fmt.Errorf("%w: empty label", ErrBadName)
		}
		if i-start > maxLabel {
			return "", fmt.Errorf("%w: label longer than %d bytes", ErrBadName, maxLabel)
		}
		start = i + 1
	}
	if upper {
		name = lowerASCII(name)
	}
	return name, nil
}

// present returns a canonical name in the form that miekg/dns expects: absolute,
// and with each backslash escaped, by its number: of two backslashes at the end, behind an
// octet beyond ASCII, that package takes the second one for the escape of the last dot.
func present(name string) string {
	if strings.IndexByte(name, '\\') >= 0 {
		name = strings.ReplaceAll(name, `\`, `\092`)
	}
	return name + "."
}

// rawName returns the raw bytes of a name that miekg/dns has unpacked, with its
// last dot. ok is false when a label holds a dot: a name without escapes cannot
// express that.
func rawName(presented string) (name string, ok bool) {
	name, dotted := unescape(presented)
	return name, !dotted
}

// canonicalOf returns rawName in canonical form.
func canonicalOf(presented string) (name string, ok bool) {
	name, ok = rawName(presented)
	name = strings.TrimSuffix(name, ".")
	for i := range len(name) {
		if name[i] != lower(name[i]) {
			return lowerASCII(name), ok
		}
	}
	return name, ok
}

// Unescape returns the octets of a text that miekg/dns has unpacked.
func Unescape(presented string) string {
	raw, _ := unescape(presented)
	return raw
}

// unescape undoes the escapes of presentation form (RFC 1035 section 5.1) as
// miekg/dns writes them, and reports whether one of them was an escaped dot.
func unescape(s string) (raw string, dotted bool) {
	at := strings.IndexByte(s, '\\')
	if at < 0 {
		return s, false
	}
	out := make([]byte, 0, len(s))
	for ; at >= 0; at = strings.IndexByte(s, '\\') {
		out = append(out, s[:at]...)
		c, length := escaped(s[at+1:])
		dotted = dotted || c == '.'
		out = append(out, c)
		s = s[at+1+length:]
	}
	return string(append(out, s...)), dotted
}

// escaped reads the escape after a backslash: three digits, or the byte itself.
func escaped(s string) (c byte, length int) {
	digit := func(i int) bool { return '0' <= s[i] && s[i] <= '9' }
	if len(s) >= 3 && digit(0) && digit(1) && digit(2) {
		return (s[0]-'0')*100 + (s[1]-'0')*10 + s[2] - '0', 3
	}
	if s == "" {
		return '\\', 0
	}
	return s[0], 1
}

// lowerASCII does not change bytes outside ASCII. strings.ToLower would replace
// those that are not UTF-8.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = lower(c)
	}
	return string(b)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// isHostname reports whether a name from an answer, with its last dot, is a host
// name: RFC 1123 characters and "_".
func isHostname(name string) bool {
	for i := range len(name) {
		switch c := lower(name[i]); {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// reverseName returns the name under in-addr.arpa or ip6.arpa (RFC 1035
// section 3.5, RFC 3596 section 2.5).
func reverseName(addr netip.Addr) string {
	addr = addr.Unmap()
	if addr.Is4() {
		b := addr.As4()
		return fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa.", b[3], b[2], b[1], b[0])
	}
	const hex = "0123456789abcdef"
	b := addr.As16()
	out := make([]byte, 0, 64+len("ip6.arpa."))
	for i := len(b) - 1; i >= 0; i-- {
		out = append(out, hex[b[i]&15], '.', hex[b[i]>>4], '.')
	}
	return string(append(out, "ip6.arpa."...))
}
