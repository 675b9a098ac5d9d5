package record

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the members of r's JSON object, without its braces, as
// zap's JSON encoder would write them. A busy server writes a record for each
// request; this costs a third of going through the encoder.
func (r *Record) AppendJSON(b []byte) []byte {
	f := jsonFields{b: b}
	r.write(&f)
	return f.b
}

// jsonFields appends members to b. comma is what stands between them.
type jsonFields struct {
	b     []byte
	comma bool
}

// key takes keys of this package only: they need no escaping.
func (f *jsonFields) key(key string) {
	if f.comma {
		f.b = append(f.b, ',')
	}
	f.comma = true
	f.b = append(f.b, '"')
	f.b = append(f.b, key...)
	f.b = append(f.b, '"', ':')
}

func (f *jsonFields) text(key, value string) {
	f.key(key)
	f.b = append(f.b, '"')
	f.b = appendEscaped(f.b, value)
	f.b = append(f.b, '"')
}

func (f *jsonFields) milliseconds(key string, d time.Duration) {
	f.key(key)
	f.b = strconv.AppendFloat(f.b, milliseconds(d), 'f', -1, 64)
}

func (f *jsonFields) list(key string, s []Step) {
	f.key(key)
	f.b = append(f.b, '[')
	for i := range s {
		if i > 0 {
			f.b = append(f.b, ',')
		}
		f.b = append(f.b, '{')
		inner := jsonFields{b: f.b}
		s[i].write(&inner)
		f.b = append(inner.b, '}')
	}
	f.b = append(f.b, ']')
}

const hexDigits = "0123456789abcdef"

// special tells an octet that may not stand in a JSON string as it is.
func special(c byte) bool {
	return c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\'
}

// appendEscaped appends s as the inside of a JSON string. What is no UTF-8
// becomes U+FFFD.
func appendEscaped(b []byte, s string) []byte {
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if !special(c) {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, size := utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		b = append(b, s[done:i]...)
		b = appendSpecial(b, c)
		i++
		done = i
	}
	return append(b, s[done:]...)
}

func appendSpecial(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, `\n`...)
	case '\r':
		return append(b, `\r`...)
	case '\t':
		return append(b, `\t`...)
	}
	if c >= utf8.RuneSelf {
		return append(b, `\ufffd`...)
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}
