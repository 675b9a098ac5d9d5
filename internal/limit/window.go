package limit

import (
	"math"
	"slices"
	"time"
)

// Cells is the number of parts of a window. What was counted is forgotten at most one
// part late.
const Cells = 100

// maxSum bounds the sum of a series, so that sums of it do not overflow.
const maxSum = math.MaxInt64 / 4

// Millis is a time in milliseconds since 1970.
type Millis = int64

// cell is what was counted in one part of a window.
type cell struct {
	at int64 // the number of the part since 1970
	n  int64
}

// Series counts in a sliding window. The zero value is ready for use.
//
// Most mails touch only the latest cell, and nothing leaves the window: so neither needs
// the list of older cells.
type Series struct {
	last  cell  // the latest; it counts nothing only if the series is empty
	first int64 // the number of the oldest part
	sum   int64
	older []cell // by time, at most Cells
}

// Advance forgets what has left the window. Counts in the future, after a clock was set
// back, are moved to now.
func (s *Series) Advance(now Millis, width int64) {
	at := now / width
	if s.last.n > 0 && s.first < at-Cells {
		s.forget(at - Cells)
	}
	if s.last.n > 0 && s.last.at > at {
		s.moveBack(at)
	}
}

// forget removes the cells before a part.
func (s *Series) forget(part int64) {
	if s.last.at < part {
		*s = Series{older: s.older[:0]}
		return
	}
	gone := 0
	for gone < len(s.older) && s.older[gone].at < part {
		s.sum -= s.older[gone].n
		gone++
	}
	s.older = slices.Delete(s.older, 0, gone)
	s.oldest()
}

// moveBack moves the counts of later parts to a part.
func (s *Series) moveBack(part int64) {
	n := int64(0)
	for s.last.n > 0 && s.last.at >= part {
		n += s.last.n
		s.pop()
	}
	s.push(cell{part, n})
}

// oldest sets the number of the oldest part.
func (s *Series) oldest() {
	s.first = s.last.at
	if len(s.older) > 0 {
		s.first = s.older[0].at
	}
}

// push adds a cell after all others, without its count in sum.
func (s *Series) push(c cell) {
	if s.last.n > 0 {
		s.older = append(s.older, s.last)
	}
	s.last = c
	s.oldest()
}

// pop removes the latest cell, without its count in sum.
func (s *Series) pop() {
	s.last = cell{}
	if last := len(s.older) - 1; last >= 0 {
		s.last, s.older = s.older[last], s.older[:last]
	}
	s.oldest()
}

// Add counts n at now, which must not be earlier than the counts before.
func (s *Series) Add(now Millis, width, n int64) {
	n = min(n, maxSum-s.sum)
	if n <= 0 {
		return
	}
	at := now / width
	s.sum += n
	if s.last.n > 0 && s.last.at == at {
		s.last.n += n
		return
	}
	s.push(cell{at, n})
}

// Sub takes back n, the latest counts first.
func (s *Series) Sub(n int64) {
	for n > 0 && s.last.n > 0 {
		taken := min(n, s.last.n)
		n, s.sum = n-taken, s.sum-taken
		if s.last.n -= taken; s.last.n == 0 {
			s.pop()
		}
	}
}

// cells calls yield for the cells, by time.
func (s *Series) cells(yield func(cell) bool) {
	for _, c := range s.older {
		if !yield(c) {
			return
		}
	}
	if s.last.n > 0 {
		yield(s.last)
	}
}

// Sum returns what counts after Advance.
func (s *Series) Sum() int64 { return s.sum }

// Wait returns the time, after Advance, until at least n has left the window. It is the
// whole window if less than n is in it.
func (s *Series) Wait(now Millis, width, n int64) time.Duration {
	for c := range s.cells {
		if n -= c.n; n <= 0 {
			return time.Duration((c.at+Cells+1)*width-now) * time.Millisecond
		}
	}
	return time.Duration(Cells*width) * time.Millisecond
}

// Spread is a set of texts that were seen in a sliding window, at most MaxNetworks+1.
type Spread struct{ seen []seen }

type seen struct {
	text string
	last Millis
}

// Advance forgets what has left the window.
func (s *Spread) Advance(now Millis, window int64) {
	s.seen = slices.DeleteFunc(s.seen, func(m seen) bool { return now-m.last >= window })
	for i := range s.seen {
		s.seen[i].last = min(s.seen[i].last, now)
	}
}

// Has reports, after Advance, whether a text is in the window.
func (s *Spread) Has(text string) bool {
	return slices.ContainsFunc(s.seen, func(m seen) bool { return m.text == text })
}

// See adds a text. If there are too many, the oldest is removed.
func (s *Spread) See(now Millis, text string) {
	if i := slices.IndexFunc(s.seen, func(m seen) bool { return m.text == text }); i >= 0 {
		s.seen = slices.Delete(s.seen, i, i+1)
	}
	if len(s.seen) > MaxNetworks {
		s.seen = slices.Delete(s.seen, 0, 1)
	}
	s.seen = append(s.seen, seen{text, now})
}

// Len returns, after Advance, how many texts are in the window.
func (s *Spread) Len() int64 { return int64(len(s.seen)) }

// Wait returns the time until there is room for one more below count.
func (s *Spread) Wait(now Millis, window, count int64) time.Duration {
	over := int(s.Len() - count)
	if over < 0 || len(s.seen) == 0 {
		return 0
	}
	return time.Duration(s.seen[min(over, len(s.seen)-1)].last+window-now) * time.Millisecond
}

// Texts returns the texts in the window, the latest last.
func (s *Spread) Texts() []string {
	texts := make([]string, len(s.seen))
	for i, m := range s.seen {
		texts[i] = m.text
	}
	return texts
}
