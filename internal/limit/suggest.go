package limit

import (
	"cmp"
	"slices"
)

// Suggest returns the least round count that at most touch senders would have reached,
// and how many would have reached it. peaks has the most that each sender has used.
func Suggest(peaks []int64, touch int) (count int64, touched int) {
	if len(peaks) == 0 {
		return 0, 0
	}
	sorted := slices.Clone(peaks)
	slices.SortFunc(sorted, func(a, b int64) int { return cmp.Compare(b, a) })
	count = 1
	if touch < len(sorted) {
		count = sorted[touch]
	}
	count = roundUp(count)
	for touched < len(sorted) && sorted[touched] > count {
		touched++
	}
	return count, touched
}

// roundUp rounds up to two digits, so that a limit is easy to remember.
func roundUp(n int64) int64 {
	unit := int64(1)
	for n/unit >= 100 {
		unit *= 10
	}
	return (n + unit - 1) / unit * unit
}
