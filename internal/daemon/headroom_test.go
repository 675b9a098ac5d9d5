package daemon

import (
	"runtime"
	"slices"
	"testing"
)

// A small heap keeps its GC percent. Of a large one, no more than the headroom
// may be garbage.
func TestHeadroom(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		live uint64
		want int
	}{
		{0, 400}, {10 * mib, 400}, {16 * mib, 400}, {32 * mib, 200}, {64 * mib, 100}, {127 * mib, 50}, {160 * mib, 20}, {2000 * mib, 20},
	} {
		if got := percentFor(tt.live); got != tt.want {
			t.Errorf("%d MiB: %d percent, want %d", tt.live/mib, got, tt.want)
		}
	}
	var set []int
	h := &headroom{percent: gcPercent, set: func(percent int) int { set = append(set, percent); return 0 }}
	for _, live := range []uint64{mib, 17 * mib, 32 * mib, 33 * mib, 160 * mib, 150 * mib, 20 * mib, mib, mib} {
		h.adjust(live)
	}
	if want := []int{200, 20, 320, 400}; !slices.Equal(set, want) {
		t.Errorf("set %v, want %v", set, want)
	}
}

// The heap is checked after every collection.
func TestHeadroomFollowsTheHeap(t *testing.T) {
	set := make(chan int, 1)
	h := &headroom{percent: gcPercent, set: func(percent int) int {
		select {
		case set <- percent:
		default: // after the test; a blocked cleanup would hold up all others
		}
		return 0
	}}
	h.sample = append(h.sample, liveHeap())
	h.awaitGC()
	large := make([]byte, 200<<20)
	for {
		runtime.GC()
		select {
		case percent := <-set:
			if percent >= 100 {
				t.Errorf("%d percent with a large heap", percent)
			}
			runtime.KeepAlive(large)
			return
		default:
			runtime.Gosched()
		}
	}
}
