package dkim

import "strings"

const crlf = "\r\n"

// AppendField appends the canonical form of f to dst, including its final CRLF
// (RFC 6376 sections 3.4.1 and 3.4.2).
func AppendField(dst []byte, c Canonicalization, f Field) []byte {
	if c == Relaxed {
		return append(appendRelaxed(dst, f.Name, f.Value), crlf...)
	}
	return append(appendSimple(dst, f.Name, f.Value), crlf...)
}

// appendSimple changes nothing, except that line breaks become CRLF, because
// Postfix passes them as LF.
func appendSimple(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ':')
	for {
		i := strings.IndexByte(value, '\n')
		if i < 0 {
			return append(dst, value...)
		}
		line := strings.TrimSuffix(value[:i], "\r")
		dst = append(dst, line...)
		dst = append(dst, crlf...)
		value = value[i+1:]
	}
}

// appendRelaxed writes the name in lower case, unfolds the value, replaces
// each run of white space by one space, and removes white space around the
// value and the colon.
func appendRelaxed(dst []byte, name, value string) []byte {
	for _, b := range []byte(trimRightWSP(name)) {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		dst = append(dst, b)
	}
	dst = append(dst, ':')
	start := len(dst)
	space := false
	for i := 0; i < len(value); i++ {
		b := value[i]
		switch {
		case b == ' ' || b == '\t':
			space = true
		case b == '\n', b == '\r' && i+1 < len(value) && value[i+1] == '\n':
			// A line break is removed; only the white space after it counts.
		default:
			if space && len(dst) > start {
				dst = append(dst, ' ')
			}
			space = false
			dst = append(dst, b)
		}
	}
	return dst
}
