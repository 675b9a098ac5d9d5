package memstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/greylist/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Subject { return memstore.New(memstore.Options{}) })
}

func at() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }

func key(i int) greylist.Key {
	return greylist.NewKey("", "", "192.0.2.0/24", fmt.Sprintf("s%dx@example.org", i), "bob@example.net")
}

func limits() greylist.Limits {
	l := storetest.Limits()
	l.NetworkCap = 0
	return l
}

func see(t testing.TB, s *memstore.Store, k greylist.Key, now time.Time) greylist.Why {
	t.Helper()
	r, err := s.Seen(t.Context(), k, now, limits())
	if err != nil {
		t.Fatal(err)
	}
	return greylist.Decide(r, now, limits()).Why
}

// TestBound fills a small store many times over: it stays small, and what
// people have allowed outlives what strangers bring.
func TestBound(t *testing.T) {
	const bound = 256 * 16
	s := memstore.New(memstore.Options{Memory: 1})
	byHand := greylist.Entry{ID: "203.0.113.0/24", Client: greylist.Client{Manual: true}}
	if err := s.Put(t.Context(), []greylist.Entry{byHand}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 * bound {
		see(t, s, key(i), at())
	}
	if n := s.Len(); n > bound {
		t.Errorf("%d entries, at most %d are allowed", n, bound)
	}
	if why := see(t, s, greylist.NewKey("", "", "203.0.113.0/24", "x", "y"), at()); why != greylist.AllowedByHand {
		t.Errorf("allowed by hand, after the flood: %d", why)
	}
}

// TestFillBeyondTheBound fills a small store with far more rows than it has room for. What
// was allowed by hand is in the oldest row, and is not forgotten.
func TestFillBeyondTheBound(t *testing.T) {
	s := memstore.New(memstore.Options{Memory: 1, Backing: missing{}})
	const n = 100_000
	rows := make([]memstore.Row, n+1)
	for i := range n {
		rows[i] = memstore.Row{RowID: int64(n - i + 1), Entry: greylist.Entry{ID: key(i).ByNetwork(), Triplet: greylist.Triplet{First: greylist.At(at())}}}
	}
	rows[n] = memstore.Row{RowID: 1, Entry: greylist.Entry{ID: "203.0.113.0/24", Client: greylist.Client{Manual: true}}}
	s.Fill(rows)
	if s.Forgotten() == 0 {
		t.Fatal("the store had room for all")
	}
	r, err := s.Peek(t.Context(), greylist.NewKey("", "", "203.0.113.0/24", "x", "y"))
	if err != nil || !r.NetworkClient.Manual {
		t.Errorf("allowed by hand: %+v, %v", r, err)
	}
}

// missing is a backing without rows.
type missing struct{}

func (missing) Load(context.Context, int64) (memstore.Row, bool, error) {
	return memstore.Row{}, false, nil
}

func TestPurge(t *testing.T) {
	s := memstore.New(memstore.Options{})
	l := limits()
	for i := range 100 {
		see(t, s, key(i), at())
	}
	see(t, s, key(0), at().Add(l.Delay))
	if n := s.Purge(greylist.At(at().Add(l.RetryWindow+time.Second)), l); n != 99 || s.Len() != 1 {
		t.Errorf("purged %d, left %d", n, s.Len())
	}
}

// TestParts writes a batch in parts, half of which fail.
func TestParts(t *testing.T) {
	s := memstore.New(memstore.Options{Backing: missing{}})
	const known, fresh, size = 40, 25, 7
	var rows []memstore.Row
	for i := range known {
		rows = append(rows, memstore.Row{RowID: int64(i + 1), Entry: greylist.Entry{ID: key(i).ByNetwork(), Triplet: greylist.Triplet{First: greylist.At(at()), Last: greylist.At(at())}}})
	}
	s.Fill(rows)
	for i := range known + fresh {
		see(t, s, key(i), at().Add(limits().Delay)) // the known ones pass
	}
	taken, _ := s.Take(0, known+fresh)
	failed := map[greylist.ID]bool{}
	seen, last, i := 0, int64(0), 0
	for part := range taken.Parts(size) {
		if n := len(part.Rows); n != size && n != (known+fresh)%size {
			t.Errorf("part %d has %d rows", i, n)
		}
		for j := range part.Rows {
			row := &part.Rows[j]
			if fits := row.RowID > last || row.RowID == 0 && seen >= known; !fits {
				t.Errorf("row %d comes after row %d", row.RowID, last)
			}
			seen, last = seen+1, row.RowID
			if i%2 == 0 {
				failed[row.ID] = true
			} else if row.RowID == 0 {
				row.RowID = int64(seen)
			}
		}
		if i%2 == 0 {
			s.Failed(part)
		} else {
			s.Written(part)
		}
		i++
	}
	if seen != known+fresh || s.Pending() != len(failed) {
		t.Errorf("%d rows, want %d; %d wait, want %d", seen, known+fresh, s.Pending(), len(failed))
	}
	again, _ := s.Take(0, known+fresh)
	for _, row := range again.Rows {
		if !failed[row.ID] {
			t.Errorf("%s is written twice", row.ID)
		}
	}
	if len(again.Rows) != len(failed) {
		t.Errorf("%d rows are written again, want %d", len(again.Rows), len(failed))
	}
}

// TestLateSightings: a sighting that changes nothing but its time does not wait to be
// written, but Review and Hasten find it, and it is not lost with its row.
func TestLateSightings(t *testing.T) {
	l := limits()
	passed := greylist.Triplet{First: greylist.At(at()), Last: greylist.At(at()), Passed: greylist.At(at())}
	row := memstore.Row{RowID: 7, Entry: greylist.Entry{ID: key(1).ByNetwork(), Triplet: passed}}
	older := row
	older.RowID = 3
	for name, write := range map[string]func(*memstore.Store) int{
		"review":  func(s *memstore.Store) int { b, _ := s.Review([]memstore.Row{older, row}); return len(b.Rows) },
		"hasten":  func(s *memstore.Store) int { s.Hasten(); return s.Pending() },
		"discard": func(s *memstore.Store) int { s.Discard(row.ID, row.RowID); return s.Pending() },
	} {
		s := memstore.New(memstore.Options{Backing: missing{}})
		s.Fill([]memstore.Row{row})
		see(t, s, key(1), at().Add(l.PassTTL/2))
		if n := s.Pending(); n != 0 {
			t.Errorf("%s: %d wait", name, n)
		}
		if n := write(s); n != 1 {
			t.Errorf("%s: %d are written", name, n)
		}
		if _, ok := s.Current(older); ok && name != "discard" {
			t.Errorf("%s: an older row counts", name)
		}
		if e, ok := s.Current(row); !ok || e.Triplet.Last != greylist.At(at().Add(l.PassTTL/2)) {
			t.Errorf("%s: %+v, %v", name, e, ok)
		}
	}
}

// TestLateSightingsMakeRoom: entries that cannot be dropped are written when a shard has no
// room.
func TestLateSightingsMakeRoom(t *testing.T) {
	s := memstore.New(memstore.Options{Memory: 1, Backing: missing{}})
	const known = 600
	for i := range known {
		row := memstore.Row{RowID: int64(i + 1), Entry: greylist.Entry{ID: key(i).ByNetwork(), Triplet: greylist.Triplet{First: greylist.At(at()), Last: greylist.At(at())}}}
		s.Fill([]memstore.Row{row})
		see(t, s, key(i), at().Add(time.Second))
	}
	if n := s.Pending(); n > known/10 {
		t.Fatalf("%d wait", n)
	}
	fresh, full := 0, 0
	for i := known; full < 200; i++ {
		switch _, err := s.Seen(t.Context(), key(i), at(), limits()); {
		case err == nil:
			fresh++
		case errors.Is(err, greylist.ErrFull):
			full++
		default:
			t.Fatal(err)
		}
	}
	if n := s.Pending(); n < fresh+full/4 {
		t.Errorf("%d wait, %d are new: the others in full shards stay", n, fresh)
	}
}

// TestNewRows: an entry that has expired gets a new row. One that was deleted does not: the
// row in the backing is not one that expires.
func TestNewRows(t *testing.T) {
	for name, isDeleted := range map[string]bool{"expired": false, "deleted": true} {
		s := memstore.New(memstore.Options{Backing: missing{}})
		row := memstore.Row{RowID: 7, Entry: greylist.Entry{ID: key(1).ByNetwork(), Triplet: greylist.Triplet{First: greylist.At(at()), Last: greylist.At(at())}}}
		s.Fill([]memstore.Row{row})
		when, want := at().Add(limits().RetryWindow+time.Second), int64(0)
		if isDeleted {
			when, want = at(), row.RowID
			if n, err := s.Delete(t.Context(), []greylist.ID{row.ID}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		if why := see(t, s, key(1), when); why != greylist.New {
			t.Errorf("%s: %d", name, why)
		}
		b, _ := s.Take(0, 10)
		if len(b.Rows) != 1 || b.Rows[0].RowID != want || b.Rows[0].Deleted {
			t.Errorf("%s: %+v, want row %d", name, b.Rows, want)
		}
	}
}

func BenchmarkSeen(b *testing.B) {
	s := memstore.New(memstore.Options{})
	b.RunParallel(func(p *testing.PB) {
		i := 0
		for p.Next() {
			i++
			see(b, s, key(i%100_000), at())
		}
	})
}
