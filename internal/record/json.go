package record

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendJSON appends the members of r's JSON object as zap's JSON encoder would
// write them, without the braces of the object. It begins with a comma, unless b
// ends in a brace. A busy server writes a record for each request, and this costs
// a fraction of the encoder.
func (r *Record) AppendJSON(b []byte) []byte {
	b = appendText(b, `,"daemon":"`, r.Daemon)
	b = appendText(b, `,"check":"`, r.Check)
	b = appendText(b, `,"verdict":"`, r.Verdict)
	b = appendText(b, `,"reason":"`, string(r.Reason))
	b = appendText(b, `,"action":"`, r.Action)
	b = appendText(b, `,"mode":"`, r.Mode)
	b = appendText(b, `,"peer":"`, r.Peer)
	b = appendText(b, `,"instance":"`, r.Instance)
	b = appendText(b, `,"queue_id":"`, r.QueueID)
	b = appendText(b, `,"client_address":"`, r.ClientAddress)
	b = appendText(b, `,"client_port":"`, r.ClientPort)
	b = appendText(b, `,"client_name":"`, r.ClientName)
	b = appendText(b, `,"helo":"`, r.Helo)
	b = appendText(b, `,"sender":"`, r.Sender)
	b = appendText(b, `,"recipient":"`, r.Recipient)
	b = appendText(b, `,"sasl_username":"`, r.SASLUsername)
	b = r.appendMessage(b)
	b = appendMilliseconds(b, r.Duration)
	if len(r.Steps) > 0 {
		b = append(appendKey(b, keySteps), '[')
		for i := range r.Steps {
			b = append(r.Steps[i].appendJSON(append(b, '{')), '}', ',')
		}
		b[len(b)-1] = ']' // in place of the last comma
	}
	return appendError(b, r.Err)
}

// appendMessage appends the members that only records of milterd have.
func (r *Record) appendMessage(b []byte) []byte {
	b = appendText(b, `,"message_id":"`, r.MessageID)
	b = appendText(b, `,"whose":"`, r.Whose)
	b = appendText(b, `,"from":"`, r.From)
	b = appendText(b, `,"spf":"`, r.SPF)
	b = appendText(b, `,"dkim":"`, r.DKIM)
	b = appendText(b, `,"arc":"`, r.ARC)
	b = appendText(b, `,"dmarc":"`, r.DMARC)
	b = appendText(b, `,"disposition":"`, r.Disposition)
	return appendText(b, `,"signed_by":"`, r.SignedBy)
}

// appendJSON is AppendJSON for one element of steps[].
func (s *Step) appendJSON(b []byte) []byte {
	b = appendText(b, `,"check":"`, s.Check)
	b = appendText(b, `,"verdict":"`, s.Verdict)
	b = appendText(b, `,"reason":"`, string(s.Reason))
	b = appendText(b, `,"mode":"`, s.Mode)
	b = appendText(b, `,"detail":"`, s.Detail)
	return appendError(b, s.Err)
}

// appendKey appends a key of this package, which needs no escaping.
func appendKey(b []byte, key string) []byte {
	if n := len(b); n > 0 && b[n-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, key...)
	return append(b, '"', ':')
}

// appendText appends a member, unless its text is empty. key is the key with its
// quotes and its colon.
func appendText(b []byte, key, text string) []byte {
	if text == "" {
		return b
	}
	if n := len(b); n == 0 || b[n-1] == '{' {
		key = key[len(","):]
	}
	b = append(b, key...)
	return append(appendEscaped(b, text), '"')
}

func appendMilliseconds(b []byte, d time.Duration) []byte {
	b = appendKey(b, keyDuration)
	us := d.Microseconds()
	if us < 0 {
		return strconv.AppendFloat(b, milliseconds(d), 'f', -1, 64)
	}
	b = strconv.AppendInt(b, us/1000, 10)
	if us %= 1000; us > 0 {
		b = append(b, '.', byte('0'+us/100), byte('0'+us/10%10), byte('0'+us%10))
		b = bytes.TrimRight(b, "0")
	}
	return b
}

func appendError(b []byte, err error) []byte {
	if err == nil {
		return b
	}
	b = append(appendKey(b, keyError), '"')
	return append(appendEscaped(b, err.Error()), '"')
}

const hexDigits = "0123456789abcdef"

// special is true for an octet that must be escaped in a JSON string.
var special = func() (t [256]bool) {
	for c := range t {
		t[c] = c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\'
	}
	return t
}()

// appendEscaped appends s as the content of a JSON string. Invalid UTF-8 becomes
// U+FFFD.
func appendEscaped(b []byte, s string) []byte {
	if isPlain(s) {
		return append(b, s...)
	}
	return escape(b, s)
}

// isPlain reports whether a text is ASCII and has nothing to escape, like most
// texts. It checks eight octets at a time.
func isPlain(s string) bool {
	var found uint64
	i := 0
	for ; i+8 <= len(s); i += 8 {
		found |= marks(word(s[i : i+8]))
	}
	if i == len(s) {
		return found&highBits == 0
	}
	if len(s) >= 8 { // the last eight, some of them again
		return (found|marks(word(s[len(s)-8:])))&highBits == 0
	}
	for ; i < len(s); i++ {
		if special[s[i]] {
			return false
		}
	}
	return true
}

const (
	eachOctet = 0x0101010101010101
	highBits  = 0x80 * eachOctet
)

// word returns the first eight octets of s.
func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// marks returns a number with a high bit set if one of eight octets is a control
// character, a quote, a backslash, or not ASCII.
func marks(w uint64) uint64 {
	quote := w ^ '"'*eachOctet
	slash := w ^ '\\'*eachOctet
	return w | (w-' '*eachOctet)&^w | (quote-eachOctet)&^quote | (slash-eachOctet)&^slash
}

// escape is appendEscaped one octet at a time.
func escape(b []byte, s string) []byte {
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
