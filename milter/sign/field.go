package sign

import (
	"strconv"
	"strings"
	"time"
)

// lineWidth is the longest line of the field, in octets without the line break (RFC
// 5322 section 2.1.1 says 78). Only a domain or selector that is longer by itself
// makes a longer line, because it cannot be folded.
const lineWidth = 76

// fieldSize is the size of a usual field, in octets.
const fieldSize = 1 << 10

// foldWriter writes tags, and begins a new line before one gets longer than
// lineWidth.
type foldWriter struct {
	b    strings.Builder
	used int // octets of the current line
}

// writeWord writes pieces as one word: on this line, or on the next if they do not fit.
func (f *foldWriter) writeWord(pieces ...string) {
	size := 0
	for _, piece := range pieces {
		size += len(piece)
	}
	if f.used > 1 && f.used+size > lineWidth {
		f.fold()
	}
	for _, piece := range pieces {
		f.b.WriteString(piece)
	}
	f.used += size
}

func (f *foldWriter) fold() {
	f.b.WriteString("\r\n ")
	f.used = 1
}

// tag writes a tag in one piece.
func (f *foldWriter) tag(name, value string) {
	if f.used+1+len(name)+1+len(value)+1 <= lineWidth {
		f.writeWord(" ")
	} else {
		f.fold()
	}
	f.writeWord(name, "=", value, ";")
}

// words writes a tag whose value may be folded at its colons.
func (f *foldWriter) words(name string, words []string) {
	f.writeWord(" ", name, "=", words[0])
	for _, word := range words[1:] {
		f.writeWord(":", word)
	}
	f.writeWord(";")
}

// base64 writes text that may be folded anywhere.
func (f *foldWriter) base64(text string) {
	for len(text) > 0 {
		room := lineWidth - f.used
		if room <= 0 {
			room = lineWidth - 1
		}
		n := min(room, len(text))
		f.writeWord(text[:n])
		text = text[n:]
	}
}

// template is a DKIM-Signature field without the signature.
type template struct {
	key      *Key
	names    []string
	bodyHash string // base64
	signed   time.Time
	expires  time.Time // zero: never
}

// value returns the folded value of the field, up to and including "b=". The
// signature is appended to it. The first line has room for the name.
func (t *template) value() *foldWriter {
	f := &foldWriter{used: len("DKIM-Signature:")}
	f.b.Grow(fieldSize)
	f.tag("v", "1")
	f.tag("a", t.key.Algorithm)
	f.tag("c", "relaxed/relaxed")
	f.tag("d", t.key.Domain)
	f.tag("s", t.key.Selector)
	if t.key.Identity != "" {
		f.tag("i", t.key.Identity)
	}
	f.tag("t", strconv.FormatInt(t.signed.Unix(), 10))
	if !t.expires.IsZero() {
		f.tag("x", strconv.FormatInt(t.expires.Unix(), 10))
	}
	f.words("h", t.names)
	f.writeWord(" bh=")
	f.base64(t.bodyHash)
	f.writeWord(";")
	f.writeWord(" b=")
	return f
}
