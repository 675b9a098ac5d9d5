package maillog

import (
	"container/heap"
	"errors"
	"io"
	"iter"
	"time"
)

const (
	// disorder is how late an older record may arrive after a newer one. Daemons write in
	// batches, and two of them write to one journal.
	disorder = 2 * time.Second
	// maxDisorder bounds the records that wait for older ones.
	maxDisorder = 50_000
)

// Merge yields the records of several sources in the order of time. A source that fails
// ends there, and the others go on; the last that is yielded is then the error.
func Merge(sources []*Source) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		var heads heads
		var failed error
		for _, s := range sources {
			failed = errors.Join(failed, heads.addSource(s))
		}
		var o Order
		for len(heads) > 0 {
			h := heads[0]
			o.Add(h.entry)
			failed = errors.Join(failed, heads.next())
			for e := range o.Ready(h.entry.Time.Add(-disorder)) {
				if !yield(e, nil) {
					return
				}
			}
		}
		for e := range o.Rest() {
			if !yield(e, nil) {
				return
			}
		}
		if failed != nil {
			yield(nil, failed)
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

func (h *heads) addSource(s *Source) error {
	e, err := s.Next()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		heap.Push(h, head{e, s})
	}
	return err
}

// next replaces the oldest record by the next one of its source.
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

// Order sorts records by time that arrive slightly out of order. Records with the same
// time keep their order.
type Order struct{ Timed[*Entry] }

// Add adds a record.
func (o *Order) Add(e *Entry) { o.Push(e.Time, e) }

// Ready yields the records up to a time, and those for which there is no room.
func (o *Order) Ready(until time.Time) iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for o.due(until) || o.Len() > maxDisorder {
			if !yield(o.pop().thing) {
				return
			}
		}
	}
}
