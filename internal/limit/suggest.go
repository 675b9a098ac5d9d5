package limit

import (
	"cmp"
	"slices"
)

// Suggest returns the least round count that at most so many of those who have sent
// would have reached, by the most that each has used, and how many would have.
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

// roundUp leaves two digits, so that a limit is easy to remember.
func roundUp(n int64) int64 {
	unit := int64(1)
	for n/unit >= 100 {
		unit *= 10
	}
	return (n + unit - 1) / unit * unit
}
