package limit

import (
	"math"
	"slices"
	"time"
)

// Cells is the number of parts of a window. What was counted is forgotten at most one
// part late.
const Cells = 100

// Millis is a time in milliseconds since 1970.
type Millis = int64

// cell is what was counted in one part of a window.
type cell struct {
	at int64 // the number of the part since 1970
	n  int64
}

// Series counts in a sliding window. The zero value is ready for use.
type Series struct {
	cells []cell // by time, at most Cells+1
	sum   int64
}

// Advance forgets what has left the window. Counts in the future, after a clock was set
// back, are moved to now.
func (s *Series) Advance(now Millis, width int64) {
	at := now / width
	gone := 0
	for gone < len(s.cells) && s.cells[gone].at < at-Cells {
		s.sum -= s.cells[gone].n
		gone++
	}
	if gone > 0 {
		s.cells = slices.Delete(s.cells, 0, gone)
	}
	last := len(s.cells)
	for last > 0 && s.cells[last-1].at > at {
		last--
	}
	if last == len(s.cells) {
		return
	}
	future := int64(0)
	for _, c := range s.cells[last:] {
		future += c.n
	}
	s.cells, s.sum = s.cells[:last], s.sum-future
	s.Add(now, width, future)
}

// Add counts n at now, which must not be earlier than the counts before.
func (s *Series) Add(now Millis, width, n int64) {
	if n <= 0 {
		return
	}
	n = min(n, math.MaxInt64/4-s.sum)
	at := now / width
	s.sum += n
	if last := len(s.cells) - 1; last >= 0 && s.cells[last].at == at {
		s.cells[last].n += n
		return
	}
	s.cells = append(s.cells, cell{at, n})
}

// Sub takes back n, the latest counts first.
func (s *Series) Sub(n int64) {
	for n > 0 && len(s.cells) > 0 {
		last := len(s.cells) - 1
		taken := min(n, s.cells[last].n)
		n, s.sum = n-taken, s.sum-taken
		if s.cells[last].n -= taken; s.cells[last].n == 0 {
			s.cells = s.cells[:last]
		}
	}
}

// Sum returns what counts after Advance.
func (s *Series) Sum() int64 { return s.sum }

// Wait returns the time, after Advance, until at least n has left the window. It is the
// whole window if less than n is in it.
func (s *Series) Wait(now Millis, width, n int64) time.Duration {
	for _, c := range s.cells {
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
