package sign

import (
	"strings"
	"testing"
)

// One octet beyond ASCII is found wherever it is.
func TestASCII(t *testing.T) {
	for n := range 100 {
		text := []byte(strings.Repeat("\x7f", n))
		if !ascii(text) {
			t.Errorf("%d octets of ASCII are not", n)
		}
		for i := range text {
			for _, b := range []byte{0x80, 0xff} {
				text[i] = b
				if ascii(text) {
					t.Errorf("%#x at %d of %d is not found", b, i, n)
				}
			}
			text[i] = 0x7f
		}
	}
}

func BenchmarkASCII(b *testing.B) {
	text := []byte(strings.Repeat("The quick brown fox jumps over the lazy dog, and goes home to sleep.\r\n", 900))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		ascii(text)
	}
}
