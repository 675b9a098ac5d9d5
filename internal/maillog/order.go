package maillog

import (
	"container/heap"
	"errors"
	"io"
	"iter"
	"time"
)

const (
	// disorder is how much later than a record another one may come that is older:
	// daemons write in batches, and two of them write one journal.
	disorder = 2 * time.Second
	// maxDisorder bounds how many records wait for older ones.
	maxDisorder = 50_000
)

// Merge gives the records of several sources in the order of time. It ends with the
// first error.
func Merge(sources []*Source) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		var heads heads
		for _, s := range sources {
			if err := heads.add(s); err != nil {
				yield(nil, err)
				return
			}
		}
		var o Order
		for len(heads) > 0 {
			h := heads[0]
			o.Add(h.entry)
			err := heads.next()
			for e := range o.Ready(h.entry.Time.Add(-disorder)) {
				if !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
		for e := range o.Rest() {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// head is a source with its next record.
type head struct {
	entry  *Entry
	source *Source
}

// heads is a heap, the oldest record first.
type heads []head

func (h heads) Len() int           { return len(h) }
func (h heads) Less(i, j int) bool { return h[i].entry.Time.Before(h[j].entry.Time) }
func (h heads) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *heads) Push(x any)        { *h = append(*h, x.(head)) }
func (h *heads) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func (h *heads) add(s *Source) error {
	e, err := s.Next()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		heap.Push(h, head{e, s})
	}
	return err
}

// next reads the record behind the oldest one.
func (h *heads) next() error {
	e, err := (*h)[0].source.Next()
	if err != nil {
		heap.Pop(h)
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	(*h)[0].entry = e
	heap.Fix(h, 0)
	return nil
}

// Order puts records into the order of time that come a little out of it. Records of
// the same time keep the order in which they came.
type Order struct{ Timed[*Entry] }

// Add takes a record.
func (o *Order) Add(e *Entry) { o.Push(e.Time, e) }

// Ready gives the records up to a time, and those that there is no room for.
func (o *Order) Ready(until time.Time) iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for o.due(until) || o.Len() > maxDisorder {
			if !yield(o.pop().thing) {
				return
			}
		}
	}
}
