package maillog

import (
	"container/heap"
	"iter"
	"time"
)

// Timed keeps values until their time. Values with the same time keep their order.
type Timed[T any] struct {
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

// Push adds a value.
func (t *Timed[T]) Push(at time.Time, thing T) {
	t.pushed++
	heap.Push(&t.heap, timedThing[T]{at, t.pushed, thing})
}

// Len returns how many values wait.
func (t *Timed[T]) Len() int { return len(t.heap) }

// UpTo yields the values that are due at a time, the earliest first.
func (t *Timed[T]) UpTo(now time.Time) iter.Seq2[T, time.Time] {
	return func(yield func(T, time.Time) bool) {
		for t.due(now) {
			next := t.pop()
			if !yield(next.thing, next.at) {
				return
			}
		}
	}
}

// Rest yields the remaining values.
func (t *Timed[T]) Rest() iter.Seq[T] {
	return func(yield func(T) bool) {
		for t.Len() > 0 {
			if !yield(t.pop().thing) {
				return
			}
		}
	}
}

func (t *Timed[T]) due(now time.Time) bool { return t.Len() > 0 && !t.heap[0].at.After(now) }

func (t *Timed[T]) pop() timedThing[T] { return heap.Pop(&t.heap).(timedThing[T]) }
