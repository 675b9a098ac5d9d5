package daemon

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// gcHeadroom is how much a large heap may grow between two collections.
	// Without it, garbage could grow to four times the size of a store of a
	// million entries.
	gcHeadroom = 64 << 20
	// A heap of storeHeap octets has such a store. To collect more often costs
	// little then, because the store has few pointers.
	storeHeap     = 128 << 20
	storeHeadroom = gcHeadroom / 2
	// minGCPercent is the lowest GC percent, so that a large heap is not
	// collected too often.
	minGCPercent = 20
)

// headroom adapts the GC percent to the size of the live heap.
type headroom struct {
	percent int // in force
	sample  []metrics.Sample
	set     func(percent int) int
}

// keepHeadroom limits garbage in a large heap to gcHeadroom, until the process
// ends.
func keepHeadroom() {
	h := &headroom{gcPercent, []metrics.Sample{liveHeap()}, debug.SetGCPercent}
	h.awaitGC()
}

// liveHeap is the metric of the memory that the last collection found in use.
func liveHeap() metrics.Sample { return metrics.Sample{Name: "/gc/heap/live:bytes"} }

// awaitGC arranges that adjust is called after each collection.
func (h *headroom) awaitGC() {
	runtime.AddCleanup(new([64]byte), func(h *headroom) {
		metrics.Read(h.sample)
		h.adjust(h.sample[0].Value.Uint64())
		h.awaitGC()
	}, h)
}

// adjust sets the GC percent for a heap with this many octets in use. A change
// stops the program for a moment, so small changes are skipped.
func (h *headroom) adjust(live uint64) {
	want := percentFor(live)
	if diff := want - h.percent; diff*10 > h.percent || -diff*10 > h.percent || want == gcPercent && diff != 0 {
		h.percent = want
		h.set(want)
	}
}

// percentFor returns the GC percent for a heap with this many octets in use.
func percentFor(live uint64) int {
	switch {
	case live <= gcHeadroom*100/gcPercent:
		return gcPercent
	case live >= storeHeap:
		return max(int(storeHeadroom*100/live), minGCPercent)
	}
	return int(gcHeadroom * 100 / live)
}
