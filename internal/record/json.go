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
	members := r.texts()
	b = appendTexts(b, members[:])
	b = appendMilliseconds(b, r.Duration)
	if len(r.Steps) > 0 {
		b = append(appendKey(b, keySteps), '[')
		for i := range r.Steps {
			b = append(r.Steps[i].appendJSON(append(b, '{')), '}', ',')
		}
		b[len(b)-1] = ']' // for the last comma
	}
	return appendError(b, r.Err)
}

// appendJSON is AppendJSON for one element of steps[].
func (s *Step) appendJSON(b []byte) []byte {
	members := s.texts()
	b = appendTexts(b, members[:])
	if s.Duration > 0 {
		b = appendMilliseconds(b, s.Duration)
	}
	return appendError(b, s.Err)
}

// appendKey takes keys of this package only: they need no escaping.
func appendKey(b []byte, key string) []byte {
	if n := len(b); n > 0 && b[n-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

func appendTexts(b []byte, members []member) []byte {
	for i := range members {
		if m := &members[i]; m.text != "" {
			b = append(appendKey(b, m.key), '"')
			b = append(appendEscaped(b, m.text), '"')
		}
	}
	return b
}

func appendMilliseconds(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(appendKey(b, keyDuration), milliseconds(d), 'f', -1, 64)
}

func appendError(b []byte, err error) []byte {
	if err == nil {
		return b
	}
	b = append(appendKey(b, keyError), '"')
	return append(appendEscaped(b, err.Error()), '"')
}

const hexDigits = "0123456789abcdef"

// special tells an octet that may not stand in a JSON string as it is.
var special = func() (t [256]bool) {
	for c := range t {
		t[c] = c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\'
	}
	return t
}()

// appendEscaped appends s as the inside of a JSON string. What is no UTF-8
// becomes U+FFFD.
func appendEscaped(b []byte, s string) []byte {
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if !special[c] {
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
