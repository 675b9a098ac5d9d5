package author

import (
	"io"
	"mime"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// decodeWords decodes all encoded-words of RFC 2047, and reports whether there
// were any. Text in an unknown charset is not converted.
func decodeWords(text string) (string, bool) {
	if !strings.Contains(text, "=?") {
		return "", false
	}
	d := mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }}
	decoded, err := d.DecodeHeader(text)
	return decoded, err == nil && decoded != text
}

// decodeName returns a display name without its quotes and encoded-words.
func decodeName(name string) string {
	var b strings.Builder
	open := false // a quoted string has no end; do not search for one again
	for len(name) > 0 {
		text, n := name[:1], 1
		if name[0] == '"' && !open {
			inner, end := mailaddr.Unquote(name)
			if open = end <= 0; !open {
				text, n = inner, end
			}
		}
		b.WriteString(text)
		name = name[n:]
	}
	if decoded, ok := decodeWords(b.String()); ok {
		return decoded
	}
	return b.String()
}
