package wire

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzGuard gives any stream to the guard. The output must be frames that the library
// reads without error, and must not depend on how the octets arrive.
func FuzzGuard(f *testing.F) {
	for _, seed := range []string{
		inContent + frame(Body, "x") + frame(EndBody, "") + frame(Quit, ""),
		inEnvelope + frame(Macro, "Li\x001\x00") + frame(Header, "A\x00 b\n c\x00"),
		"\x00\x00\x00\x00",
		"\xff\xff\xff\xffB",
		negotiated + frame(Connect, "host\x004\x00"),
		connected + frame(Macro, ""),
		inEnvelope + frame(Header, "A\x00b\x00c\x00"),
		connected + frame('U', "XYZZY\x00"),
		inEnvelope + strings.Repeat(frame(Header, "A\x00b\x00"), 50),
		inContent + frame(Body, strings.Repeat("\r\n", 500)),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, g := readAll(t, bytes.NewReader(stream))
		parts, g2 := readAll(t, iotest.HalfReader(bytes.NewReader(stream)))
		if whole != parts || (g.Err() == nil) != (g2.Err() == nil) {
			t.Fatalf("the arrival matters: %d octets (%v), %d octets (%v)", len(whole), g.Err(), len(parts), g2.Err())
		}
		checkFrames(t, whole)
		seen, _, g3 := keptBodies(t, bytes.NewReader(stream), func(n int) bool { return n%2 == 0 })
		if (g.Err() == nil) != (g3.Err() == nil) || len(seen) > len(whole) {
			t.Fatalf("bodies matter: %d octets (%v), %d octets (%v)", len(whole), g.Err(), len(seen), g3.Err())
		}
		checkFrames(t, seen)
		rest, fields, _, g4 := keptHeaders(t, bytes.NewReader(stream))
		others, all := splitHeaders(whole)
		if (g.Err() == nil) != (g4.Err() == nil) || rest != others || !slices.Equal(fields, all) {
			t.Fatalf("headers matter: %d octets and %d fields (%v), %d and %d (%v)", len(others), len(all), g.Err(), len(rest), len(fields), g4.Err())
		}
	})
}

func checkFrames(t *testing.T, passed string) {
	for rest := passed; rest != ""; {
		if len(rest) < 5 {
			t.Fatalf("half a frame head passed: %q", rest)
		}
		n := int(binary.BigEndian.Uint32([]byte(rest)))
		c := Command(rest[4])
		r, known := ruleFor(c)
		if !known || c == Macro || n-1 < r.min || n-1 > r.max {
			t.Fatalf("frame %q of %d octets passed", byte(c), n)
		}
		if len(rest) < 4+n {
			if c != Body {
				t.Fatalf("half a frame %q passed", byte(c))
			}
			return
		}
		if c == Header && strings.Count(rest[5:4+n], "\x00") != 2 {
			t.Fatalf("header %q passed", rest[5:4+n])
		}
		rest = rest[4+n:]
	}
}

func BenchmarkGuard(b *testing.B) {
	var message strings.Builder
	for range 25 {
		message.WriteString(frame(Macro, "Li\x004XQUEUEID\x00"))
		message.WriteString(frame(Header, "X-Some-Header\x00 with a value of a usual length\x00"))
	}
	message.WriteString(frame(EndHeader, "") + frame(Body, strings.Repeat("x", 10_000)) + frame(EndBody, ""))
	one := frame(Mail, "<a@example.org>\x00") + frame(Rcpt, "<b@example.com>\x00") + message.String()
	in := io.MultiReader(strings.NewReader(connected), &repeat{text: one})
	g := New(&scripted{in: in}, Config{})
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	for b.Loop() {
		for n := 0; n < len(one)*9/10; {
			got, err := g.Read(buf)
			if err != nil {
				b.Fatal(err, g.Err())
			}
			n += got
		}
	}
}

// repeat is a text without end.
type repeat struct {
	text string
	at   int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.text[r.at:])
	r.at = (r.at + n) % len(r.text)
	return n, nil
}
