package mailaddr

import "strings"

// plainAt returns the index of the "@" of a plain address (see
// [Address.IsPlain]), which needs no further check or change. It returns 0 for
// any other address. It reads each octet once; the full way reads it six times.
func plainAt(raw string) int {
	if len(raw) > MaxLocal+1+MaxDomain {
		return 0
	}
	at := plainLocal(raw)
	if at == 0 || at > MaxLocal || !isPlainName(raw[at+1:]) {
		return 0
	}
	return at
}

// plainLocal returns the index of the "@" after a dot-string in lower case, or
// 0.
func plainLocal(raw string) int {
	afterDot := true
	for i := range len(raw) {
		switch c := raw[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '+', c == '=':
			afterDot = false
		case c == '.' && !afterDot:
			afterDot = true
		case c == '@' && !afterDot:
			return i
		default:
			return 0
		}
	}
	return 0
}

// isPlainName reports whether a name is in lower case, without A-labels and
// without a final dot.
func isPlainName(name string) bool {
	if len(name) > MaxDomain {
		return false
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '.' {
			if !isNameByte(name[i]) || isUpper(name[i]) {
				return false
			}
			continue
		}
		if label := name[start:i]; !isLabel(label) || strings.HasPrefix(label, "xn--") {
			return false
		}
		start = i + 1
	}
	return true
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

// isLower reports whether text is ASCII without upper-case letters, so that
// folding does not change it. It reads eight octets at a time.
func isLower(s string) bool {
	var found uint64
	i := 0
	for ; i+8 <= len(s); i += 8 {
		found |= marks(s[i : i+8])
	}
	if i < len(s) && len(s) >= 8 { // the last eight, which may overlap
		found |= marks(s[len(s)-8:])
		i = len(s)
	}
	for ; i < len(s); i++ {
		if s[i] >= 0x80 || isUpper(s[i]) {
			return false
		}
	}
	return found&(0x80*eachOctet) == 0
}

const eachOctet = 0x0101010101010101

// marks sets the high bit of each of eight octets that is not ASCII or is an
// upper-case letter.
func marks(s string) uint64 {
	_ = s[7]
	w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	// With ASCII octets, the additions never carry into the next octet. The
	// high bit of the first sum means "A" or above, that of the second "[" or
	// above.
	return w | (w+(0x80-'A')*eachOctet)&^(w+(0x80-'[')*eachOctet)
}
