package replay

import (
	"container/heap"
	"iter"
	"time"
)

// timed holds things until their time has come. Those of one time keep their order.
type timed[T any] struct {
	heap   timedHeap[T]
	pushed uint64
}

type timedThing[T any] struct {
	at     time.Time
	number uint64
	thing  T
}

type timedHeap[T any] []timedThing[T]

func (h timedHeap[T]) Len() int { return len(h) }
func (h timedHeap[T]) Less(i, j int) bool {
	if h[i].at.Equal(h[j].at) {
		return h[i].number < h[j].number
	}
	return h[i].at.Before(h[j].at)
}
func (h timedHeap[T]) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *timedHeap[T]) Push(x any)   { *h = append(*h, x.(timedThing[T])) }
func (h *timedHeap[T]) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func (t *timed[T]) push(at time.Time, thing T) {
	t.pushed++
	heap.Push(&t.heap, timedThing[T]{at, t.pushed, thing})
}

// upTo gives what is due at a time, the earliest first.
func (t *timed[T]) upTo(now time.Time) iter.Seq2[T, time.Time] {
	return func(yield func(T, time.Time) bool) {
		for len(t.heap) > 0 && !t.heap[0].at.After(now) {
			next := heap.Pop(&t.heap).(timedThing[T])
			if !yield(next.thing, next.at) {
				return
			}
		}
	}
}

// rest gives what is left.
func (t *timed[T]) rest() iter.Seq2[T, time.Time] {
	if len(t.heap) == 0 {
		return func(func(T, time.Time) bool) {}
	}
	last := t.heap[0].at
	for _, x := range t.heap {
		if x.at.After(last) {
			last = x.at
		}
	}
	return t.upTo(last)
}
