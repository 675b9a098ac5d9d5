package sqlitestore_test

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/limit"
)

// TestEditedDates opens a file with dates that no daemon writes. What was counted counts,
// blocks that have not ended hold, and nothing is locked out.
func TestEditedDates(t *testing.T) {
	day := 24 * time.Hour
	for _, date := range []int64{
		0, -1, 1, begin().Add(-day).UnixMilli(), begin().Add(day).UnixMilli(), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli(),
		begin().UnixNano(), math.MinInt64, math.MaxInt64,
	} {
		t.Run(fmt.Sprint(date), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "limits.db")
			s, _ := openDamaged(t, path)
			if n := sent(t, s, "bob", 3); n != 3 {
				t.Fatalf("%d used", n)
			}
			block(t, s)
			closed(t, s)
			edit(t, path, fmt.Sprintf("UPDATE counters SET last = %d", date), fmt.Sprintf("UPDATE blocks SET since = %d, until = %d WHERE login = 'mallory'", date, date),
				fmt.Sprintf("UPDATE blocks SET since = %d WHERE login = 'eve'", date), fmt.Sprintf("UPDATE transactions SET ends = %d", date))
			s, d := openDamaged(t, path)
			if d.rows != 0 {
				t.Errorf("%d rows reported: %v", d.rows, d.first)
			}
			if n := sent(t, s, "bob", 3); n != 3 {
				t.Errorf("a repetition: %d used", n)
			}
			if n := sent(t, s, "ann", 1); n != 1 {
				t.Errorf("another login: %d used", n)
			}
			active := 0
			all, err := s.Blocks(t.Context())
			for _, b := range all {
				if b.Active(begin()) {
					active++
				}
			}
			if want := 1 + want(date); err != nil || active != want {
				t.Errorf("%d blocks are in effect, want %d: %v", active, want, err)
			}
			s.Purge(begin(), 1000)
			n := 0
			if err := s.Counters(t.Context(), "", begin(), func(limit.Counter) error { n++; return nil }); err != nil || n != 2 {
				t.Errorf("%d counters: %v", n, err)
			}
			closed(t, s)
			s, _ = openDamaged(t, path)
			if n := sent(t, s, "bob", 3); n != 6-3*int64(want(date)) && date != 0 { // without its transaction, it counts again
				t.Errorf("after another start: %d used", n)
			}
			closed(t, s)
		})
	}
}

// want is how many blocks are in effect that end at a date: 0 is never.
func want(date int64) int {
	if date == 0 || date > begin().UnixMilli() {
		return 1
	}
	return 0
}
