package limit

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// naive is a Series that remembers each cell in a map.
type naive map[int64]int64

func (m naive) advance(at int64) {
	for part, n := range m {
		if part < at-Cells {
			delete(m, part)
		}
		if part > at {
			delete(m, part)
			m[at] += n
		}
	}
}

func (m naive) sub(n int64) {
	for n > 0 && len(m) > 0 {
		last := int64(-1 << 62)
		for part := range m {
			last = max(last, part)
		}
		taken := min(n, m[last])
		n -= taken
		if m[last] -= taken; m[last] == 0 {
			delete(m, last)
		}
	}
}

func (m naive) sum() (sum int64) {
	for _, n := range m {
		sum += n
	}
	return sum
}

// FuzzSeries compares a Series, and what is read back of it, with a naive one.
func FuzzSeries(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		seed := make([]byte, 3*200)
		for i := range seed {
			seed[i] = byte(r.UintN(256))
		}
		f.Add(seed)
	}
	const width = 10
	f.Fuzz(func(t *testing.T, in []byte) {
		var s Series
		want := naive{}
		now := Millis(1_000_000)
		for ; len(in) >= 3; in = in[3:] {
			now += int64(int8(in[1])) // also set back
			if in[0]%16 == 0 {
				now += int64(int16(binary.LittleEndian.Uint16(in[1:])))
			}
			now = max(now, 0)
			s.Advance(now, width)
			want.advance(now / width)
			if n := int64(in[2] % 8); in[0]%4 == 1 {
				s.Sub(n)
				want.sub(n)
			} else if n > 0 {
				s.Add(now, width, n)
				want[now/width] += n
			}
			if s.Sum() != want.sum() {
				t.Fatalf("sum %d, want %d: %+v, want %v", s.Sum(), want.sum(), s, want)
			}
			var read Series
			if rest, err := read.Read(s.Append(nil)); err != nil || len(rest) > 0 {
				t.Fatalf("%+v: %v, %d octets left", s, err, len(rest))
			}
			for _, s := range []Series{s, read} {
				compare(t, &s, want)
			}
		}
	})
}

func compare(t *testing.T, s *Series, want naive) {
	t.Helper()
	n, before := 0, int64(-1)
	for c := range s.cells {
		if c.n != want[c.at] || c.at <= before || n == 0 && c.at != s.first {
			t.Fatalf("%+v, want %v", s, want)
		}
		n, before = n+1, c.at
	}
	if n != len(want) || n > Cells+1 {
		t.Fatalf("%+v, want %v", s, want)
	}
}

// Counts whose sum overflows are refused: a negative sum would be below every limit.
func TestSeriesOfHugeCounts(t *testing.T) {
	for cells, ok := range map[uint64]bool{1: true, 2: false, 5: false} {
		b := binary.AppendUvarint(nil, cells)
		for range cells {
			b = binary.AppendVarint(binary.AppendVarint(b, 1), maxSum)
		}
		var s Series
		if _, err := s.Read(b); ok != (err == nil) || ok && s.Sum() != maxSum {
			t.Errorf("%d cells: sum %d, %v", cells, s.Sum(), err)
		}
	}
}
