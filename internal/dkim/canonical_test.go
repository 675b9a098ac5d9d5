package dkim

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

func TestAppendField(t *testing.T) {
	tests := []struct {
		name            string
		field           Field
		simple, relaxed string
	}{
		// The example of RFC 6376 section 3.4.5.
		{"rfc A", Field{"A", " X"}, "A: X\r\n", "a:X\r\n"},
		{"rfc B", Field{"B ", " Y\t\r\n\tZ  "}, "B : Y\t\r\n\tZ  \r\n", "b:Y Z\r\n"},
		{"folded with LF", Field{"B", " Y\n Z"}, "B: Y\r\n Z\r\n", "b:Y Z\r\n"},
		{"no space after the colon", Field{"Subject", "x"}, "Subject:x\r\n", "subject:x\r\n"},
		{"empty", Field{"Cc", ""}, "Cc:\r\n", "cc:\r\n"},
		{"only white space", Field{"Cc", " \t \r\n \t"}, "Cc: \t \r\n \t\r\n", "cc:\r\n"},
		{"a CR alone is content", Field{"X", " a\rb"}, "X: a\rb\r\n", "x:a\rb\r\n"},
		{"a break without white space", Field{"X", " a\r\nb"}, "X: a\r\nb\r\n", "x:ab\r\n"},
		{"octets beyond ASCII stay", Field{"SUBJECT", " \xc3\x84\xff"}, "SUBJECT: \xc3\x84\xff\r\n", "subject:\xc3\x84\xff\r\n"},
		{"no-break space is no white space", Field{"X", "\u00a0a\u00a0"}, "X:\u00a0a\u00a0\r\n", "x:\u00a0a\u00a0\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(AppendField(nil, Simple, tt.field)); got != tt.simple {
				t.Errorf("simple: got %q, want %q", got, tt.simple)
			}
			if got := string(AppendField(nil, Relaxed, tt.field)); got != tt.relaxed {
				t.Errorf("relaxed: got %q, want %q", got, tt.relaxed)
			}
		})
	}
}

// Canonical bodies written down by hand, from RFC 6376 section 3.4.
func TestBodyHash(t *testing.T) {
	tests := []struct{ name, body, simple, relaxed string }{
		{"empty", "", "\r\n", ""},
		{"one line break", "\r\n", "\r\n", ""},
		{"many line breaks", strings.Repeat("\r\n", 3000), "\r\n", ""},
		{"only white space", " \t\r\n \r\n", " \t\r\n \r\n", ""},
		{"only a space", " ", " \r\n", ""},
		{"rfc 3.4.5", " C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"},
		{"no final line break", "a", "a\r\n", "a\r\n"},
		{"no final line break, white space", "a \t", "a \t\r\n", "a\r\n"},
		{"leading line breaks stay", "\r\n\r\na\r\n", "\r\n\r\na\r\n", "\r\n\r\na\r\n"},
		{"CR at the end", "a\r", "a\r\r\n", "a\r\r\n"},
		{"CR alone", "\r", "\r\r\n", "\r\r\n"},
		{"space before a CR alone", "a  \rb", "a  \rb\r\n", "a \rb\r\n"},
		{"LF alone is content", "a\n\n", "a\n\n\r\n", "a\n\n\r\n"},
		{"CR CR LF", "a\r\r\n", "a\r\r\n", "a\r\r\n"},
		{"NUL", "a \x00 b", "a \x00 b\r\n", "a \x00 b\r\n"},
		{"tab becomes a space", "a\tb c\t\td", "a\tb c\t\td\r\n", "a b c d\r\n"},
		{"breaks then space then end", "a\r\n\r\n  ", "a\r\n\r\n  \r\n", "a\r\n"},
		{"breaks then text", "a" + strings.Repeat("\r\n", 3000) + "b", "a" + strings.Repeat("\r\n", 3000) + "b\r\n", "a" + strings.Repeat("\r\n", 3000) + "b\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for size := 1; size <= len(tt.body)+1; size = size*2 + 1 {
				if bodyHash(Simple, tt.body, size) != sha256.Sum256([]byte(tt.simple)) {
					t.Errorf("simple form is not %q in writes of %d", tt.simple, size)
				}
				if bodyHash(Relaxed, tt.body, size) != sha256.Sum256([]byte(tt.relaxed)) {
					t.Errorf("relaxed form is not %q in writes of %d", tt.relaxed, size)
				}
			}
		})
	}
}

func bodyHash(c Canonicalization, body string, size int) [sha256.Size]byte {
	h := NewBodyHash(c)
	for len(body) > 0 {
		n := min(size, len(body))
		h.Write([]byte(body[:n]))
		body = body[n:]
	}
	return h.Sum()
}

var (
	trailingBreaks = regexp.MustCompile(`(\r\n)+\z`)
	lineEndSpace   = regexp.MustCompile(`[ \t]+(\r\n|\z)`)
	spaceRun       = regexp.MustCompile(`[ \t]+`)
)

// plainBody says what the RFC says, without regard to speed.
func plainBody(c Canonicalization, body []byte) []byte {
	if c == Relaxed {
		body = lineEndSpace.ReplaceAll(body, []byte("$1"))
		body = spaceRun.ReplaceAll(body, []byte(" "))
	}
	body = trailingBreaks.ReplaceAll(body, nil)
	if c == Relaxed && len(body) == 0 {
		return nil
	}
	return append(bytes.Clone(body), crlf...)
}

func checkBody(t *testing.T, body []byte, seed uint64) {
	t.Helper()
	for _, c := range []Canonicalization{Simple, Relaxed} {
		rnd := rand.New(rand.NewPCG(seed, 1))
		h := NewBodyHash(c)
		for rest := body; len(rest) > 0; {
			n := 1 + rnd.IntN(len(rest))
			h.Write(rest[:n])
			rest = rest[n:]
		}
		if want := plainBody(c, body); h.Sum() != sha256.Sum256(want) {
			t.Fatalf("%s form of %q, split by %d, is not %q", c, body, seed, want)
		}
	}
}

func TestBodyHashRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	alphabets := []string{"ab \t\r\n", "abcdefgh ", "a\r\n", " \t\r", "abcdefghijklmnop \r\n\x00\x80\xa0"}
	for i := range 20_000 {
		alphabet := alphabets[i%len(alphabets)]
		body := make([]byte, rnd.IntN(60))
		for j := range body {
			body[j] = alphabet[rnd.IntN(len(alphabet))]
			if body[j] == '\r' && j > 0 && rnd.IntN(2) == 0 {
				body[j-1], body[j] = '\r', '\n'
			}
		}
		checkBody(t, body, uint64(i))
	}
}

// Text is clean up to a tab, or a space without text after it, wherever that lies.
func TestCleanPrefix(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		p := []byte(strings.Repeat([]string{"abcde f", "QUJD", "\xc3\xa0 \xff ", "x\r\n"}[rnd.IntN(4)], 500))
		p = p[:rnd.IntN(len(p))]
		for range rnd.IntN(3) {
			if len(p) > 0 {
				p[rnd.IntN(len(p))] = " \t \r\x00\x20\xa0\x80"[rnd.IntN(8)]
			}
		}
		want := 0
		for want < len(p) && p[want] != '\t' && (p[want] != ' ' || want+1 < len(p) && p[want+1] > ' ') {
			want++
		}
		if got := cleanPrefix(p); got != want {
			t.Fatalf("%d octets of %q are clean, want %d", got, p, want)
		}
		if got := cleanWords(p); got != want {
			t.Fatalf("%d octets of %q are clean by words, want %d", got, p, want)
		}
		if got := cleanBlocks(p); got > want || hasCleanBlocks && got < min(want, len(p)-1)/64*64 {
			t.Fatalf("%d octets of %q are clean in blocks, want whole blocks of %d", got, p, want)
		}
	}
}

func FuzzBodyHash(f *testing.F) {
	f.Add([]byte(" C \r\nD \t E\r\n\r\n\r\n"), uint64(1))
	f.Add([]byte("\r\r\n \r\t\r\n\r"), uint64(2))
	f.Add([]byte("abcdefg h ijklmno  p\r\n q \t"), uint64(3))
	f.Fuzz(func(t *testing.T, body []byte, seed uint64) { checkBody(t, body, seed) })
}

func FuzzAppendField(f *testing.F) {
	f.Add("Subject ", " a\r\n b\t")
	f.Add("X", "\n\r\n\r")
	f.Fuzz(func(t *testing.T, name, value string) {
		once := AppendField(nil, Relaxed, Field{name, value})
		again := strings.TrimSuffix(string(once), crlf)
		n, v, _ := strings.Cut(again, ":")
		if strings.Contains(name, ":") {
			t.Skip("not a field name")
		}
		if twice := AppendField(nil, Relaxed, Field{n, v}); !strings.ContainsAny(name+value, "\r\n") && !bytes.Equal(once, twice) {
			t.Fatalf("relaxed form is not stable: %q, then %q", once, twice)
		}
		if bytes.ContainsAny(once[len(n):], "\t") || bytes.Contains(once[len(n):], []byte("  ")) {
			t.Fatalf("white space left in %q", once)
		}
	})
}

func BenchmarkBodyHash(b *testing.B) {
	text := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog, and goes home to sleep.\r\n"), 1<<20/70)
	base64 := bytes.Repeat([]byte(strings.Repeat("QUJDREVG", 9)+"QUJD\r\n"), 1<<20/78)
	indented := bytes.Repeat([]byte("      <td>  a\tb</td>   \r\n"), 1<<20/26)
	blank := bytes.Repeat([]byte(crlf), 1<<19)
	for _, body := range []struct {
		name string
		data []byte
	}{{"text", text}, {"base64", base64}, {"indented", indented}, {"blank", blank}} {
		b.Run("sha256/"+body.name, func(b *testing.B) {
			b.SetBytes(int64(len(body.data)))
			for b.Loop() {
				sha256.Sum256(body.data)
			}
		})
		for _, c := range []Canonicalization{Simple, Relaxed} {
			b.Run(string(c)+"/"+body.name, func(b *testing.B) {
				b.SetBytes(int64(len(body.data)))
				for b.Loop() {
					h := NewBodyHash(c)
					for rest := body.data; len(rest) > 0; {
						n := min(65535, len(rest))
						h.Write(rest[:n])
						rest = rest[n:]
					}
					h.Sum()
				}
			})
		}
	}
}
