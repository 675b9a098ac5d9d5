package daemon

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// gcHeadroom is what the heap may grow by between two collections when much is in
	// use. A store of a million entries has few pointers, so that collecting more
	// often costs little; four times its size in garbage would be most of what the
	// daemon holds.
	gcHeadroom = 64 << 20
	// minGCPercent bounds how often a large heap is collected.
	minGCPercent = 20
)

// headroom keeps the GC percent in step with what is in use.
type headroom struct {
	percent int // in force
	sample  []metrics.Sample
	set     func(percent int) int
}

// keepHeadroom bounds what is not in use any more to gcHeadroom, from now to the end
// of the process.
func keepHeadroom() {
	h := &headroom{gcPercent, []metrics.Sample{liveHeap()}, debug.SetGCPercent}
	h.awaitGC()
}

// liveHeap is what the last collection found in use.
func liveHeap() metrics.Sample { return metrics.Sample{Name: "/gc/heap/live:bytes"} }

// awaitGC has adjust called after the next collection, and after each that follows.
func (h *headroom) awaitGC() {
	runtime.AddCleanup(new([64]byte), func(h *headroom) {
		metrics.Read(h.sample)
		h.adjust(h.sample[0].Value.Uint64())
		h.awaitGC()
	}, h)
}

// adjust sets the percent for a heap of which live octets are in use. A change stops
// the program for a moment: small ones are left out.
func (h *headroom) adjust(live uint64) {
	want := percentFor(live)
	if diff := want - h.percent; diff*10 > h.percent || -diff*10 > h.percent || want == gcPercent && diff != 0 {
		h.percent = want
		h.set(want)
	}
}

// percentFor returns the GC percent for a heap of which live octets are in use.
func percentFor(live uint64) int {
	if live <= gcHeadroom*100/gcPercent {
		return gcPercent
	}
	return max(int(gcHeadroom*100/live), minGCPercent)
}
