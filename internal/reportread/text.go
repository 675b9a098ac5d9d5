package reportread

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"

	"golang.org/x/net/html/charset"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
)

const (
	maxPiece = 64 << 10 // octets of a name, a comment or a text in a document
	maxText  = 512      // octets of a text that are kept
)

var errPiece = fmt.Errorf("a tag, a comment or a text longer than %d octets", maxPiece)

// pieces is a stream that bounds how much is read between two calls of allow.
type pieces struct {
	in   io.Reader
	left int64
	err  error // returned beyond the bound
}

func (p *pieces) allow(n int64) { p.left = n }
func (p *pieces) unbound()      { p.left = math.MaxInt64 }

func (p *pieces) Read(b []byte) (int, error) {
	if p.left <= 0 {
		return 0, p.err
	}
	n, err := p.in.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	return n, err
}

var declaration = regexp.MustCompile(`^\s*<\?xml\s[^>]*?encoding\s*=\s*["']\s*([^"'\s>]+)\s*["']`)

// asUTF8 decodes a document to UTF-8, by its byte order mark or else by its declaration.
// Invalid UTF-8 becomes U+FFFD.
func asUTF8(in *buffered) (io.Reader, error) {
	if marked(in) || wide(in) {
		return transform.NewReader(in, utf16(in)), nil
	}
	start, _ := in.Peek(maxPrologue)
	label := "utf-8"
	if m := declaration.FindSubmatch(start); m != nil {
		label = strings.ToLower(string(m[1]))
	}
	switch label {
	case "utf-8", "utf8", "us-ascii", "ascii", "utf-16", "utf-16le", "utf-16be", "unicode": // read so far, so not 16 bits wide
		return transform.NewReader(in, runes.ReplaceIllFormed()), nil
	}
	decoder, _ := charset.Lookup(label)
	if decoder == nil || decoder == encoding.Replacement {
		return nil, fmt.Errorf("the document says that its charset is %.40q, which is unknown; convert it to UTF-8", label)
	}
	return transform.NewReader(in, decoder.NewDecoder()), nil
}

func marked(in *buffered) bool {
	start, _ := in.Peek(3)
	for _, mark := range marks {
		if bytes.HasPrefix(start, []byte(mark)) {
			return true
		}
	}
	return false
}

// wide reports whether each character has two octets.
func wide(in *buffered) bool {
	start, _ := in.Peek(2)
	return bytes.Equal(start, []byte("<\x00")) || bytes.Equal(start, []byte("\x00<"))
}

// utf16 decodes by the byte order mark, or by the order that the first character shows.
func utf16(in *buffered) transform.Transformer {
	start, _ := in.Peek(2)
	order := unicode.LittleEndian
	if len(start) > 0 && start[0] == 0 {
		order = unicode.BigEndian
	}
	if marked(in) {
		return unicode.BOMOverride(runes.ReplaceIllFormed())
	}
	return unicode.UTF16(order, unicode.IgnoreBOM).NewDecoder()
}

// tidy passes XML on, and escapes each "<" that begins no tag, because some reporters
// write addresses in angle brackets without escaping them.
type tidy struct {
	in  *bufio.Reader
	out []byte
}

func newTidy(in io.Reader) *tidy { return &tidy{in: bufio.NewReaderSize(in, 32<<10)} }

func (t *tidy) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(t.out) == 0 {
		if err := t.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, t.out)
	t.out = t.out[n:]
	return n, nil
}

// fill takes the buffered text up to the first "<" that perhaps begins no tag. If it
// begins with such a "<", fill takes only that.
func (t *tidy) fill() error {
	if _, err := t.in.Peek(1); err != nil {
		return err
	}
	ready, _ := t.in.Peek(t.in.Buffered())
	n := clean(ready)
	t.out = ready[:n] // until the next Peek
	if n == 0 {
		n = 1
		around, err := t.in.Peek(maxTag)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		t.out = []byte("<")
		if !tag.Match(around) {
			t.out = []byte("&lt;")
		}
	}
	_, err := t.in.Discard(n)
	return err
}

// maxTag bounds the search for the end of a tag with attributes.
const maxTag = 4096

var tag = regexp.MustCompile(`^<([!?]|/?[A-Za-z_][^\s<>/="'@]*(\s+[A-Za-z_][^\s<>/="'@]*\s*=\s*("[^"<]*"|'[^'<]*'))*\s*/?>)`)

// clean returns the length of text before the first "<" that does not begin a simple tag.
func clean(text []byte) int {
	for at := 0; ; {
		next := bytes.IndexByte(text[at:], '<')
		if next < 0 {
			return len(text)
		}
		if at += next; !isSimpleTag(text[at:]) {
			return at
		}
		at++
	}
}

// isSimpleTag reports whether text begins with a tag without attributes.
func isSimpleTag(text []byte) bool {
	begin := 1
	if len(text) > 1 && text[1] == '/' {
		begin = 2
	}
	for n := begin; n < len(text); n++ {
		switch c := text[n]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', n > begin && (c >= '0' && c <= '9' || c == '-' || c == '.' || c == ':'):
		default:
			return c == '>' && n > begin
		}
	}
	return false
}

// clipped returns a text in the form in which it is kept.
func clipped(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "")
	}
	return text
}
