package memstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/greylist"
)

// TestTable compares a long random history with a map, with IDs of all lengths
// and with hashes that collide.
func TestTable(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	hash := func(id greylist.ID) uint64 { return uint64(len(id)) % 97 }
	var table table
	model := map[greylist.ID]greylist.Stamp{}
	id := func() greylist.ID {
		n := random.IntN(3000)
		return greylist.ID(fmt.Sprint(n, strings.Repeat("x", n%500)))
	}
	for step := range 50_000 {
		id := id()
		slot := table.find(hash(id), id)
		if _, known := model[id]; known != (slot >= 0) {
			t.Fatalf("seed %d, step %d: %.20s is in slot %d", seed, step, id, slot)
		}
		switch {
		case slot < 0:
			slot = table.add(hash(id), id)
			table.slot(slot).triplet.Last = greylist.Stamp(step)
			model[id] = greylist.Stamp(step)
		case table.id(slot) != id || table.slot(slot).triplet.Last != model[id]:
			t.Fatalf("seed %d, step %d: %.20s is %+v", seed, step, id, table.entry(slot))
		default:
			table.remove(slot)
			delete(model, id)
		}
	}
	n, octets := 0, 0
	table.all(func(slot int) {
		n, octets = n+1, octets+len(table.name(table.slot(slot)))
		if _, known := model[table.id(slot)]; !known {
			t.Errorf("%.20s should have gone", table.id(slot))
		}
	})
	if n != len(model) || n != table.live || table.text.live != octets || table.text.waste > octets/3+textBlock {
		t.Errorf("%d entries of %d, %+v octets for %d", n, len(model), table.text.live, octets)
	}
}

// TestAway compares a long random history with a map, with hashes that collide in their
// place.
func TestAway(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	const most = 1000
	a := away{most: most}
	model := map[uint64]int64{}
	refused := 0
	for step := range 8_000 {
		hash := uint64(random.IntN(8))<<(40+random.IntN(12)) | uint64(random.IntN(300))
		if got := a.row(hash); got != model[hash] {
			t.Fatalf("seed %d, step %d: row %d, want %d", seed, step, got, model[hash])
		}
		if random.IntN(3) == 0 {
			a.remove(hash)
			delete(model, hash)
			continue
		}
		_, known := model[hash]
		if ok := a.add(hash, int64(step+1)); ok != (known || len(model) < most) {
			t.Fatalf("seed %d, step %d: added: %v, there are %d", seed, step, ok, len(model))
		} else if ok {
			model[hash] = int64(step + 1)
		} else {
			refused++
		}
	}
	if refused == 0 || len(a.places) > most*2 {
		t.Errorf("seed %d: %d rows in %d places, %d refused", seed, len(model), len(a.places), refused)
	}
	for hash := range model {
		a.remove(hash)
	}
	if a.add(7, 0); a.count != 0 || slices.ContainsFunc(a.places, func(p awayRow) bool { return p != awayRow{} }) {
		t.Errorf("%d rows are left", a.count)
	}
}

// TestMemory fills stores far beyond their bound, with short and with long IDs: the
// heap grows by the bound at most.
func TestMemory(t *testing.T) {
	const memory = 16 << 20
	for _, size := range []int{75, 900} {
		s := New(Options{Memory: memory, Backing: noBacking{}})
		used := heapOf(func() {
			fill(s, memory*2/3/awaySize, func(i int) string { return fmt.Sprintf("%-*d x", size, i) })
		})
		if used > memory*11/10 || s.Forgotten() == 0 {
			t.Errorf("IDs of %d octets: %d octets of memory, %d were forgotten", size, used, s.Forgotten())
		}
		t.Logf("IDs of %d octets: %.1f MiB", size, float64(used)/(1<<20))
		runtime.KeepAlive(s)
	}
}

// fill adds n rows.
func fill(s *Store, n int, id func(i int) string) {
	rows := make([]Row, 0, 4096)
	for i := range n {
		if rows = append(rows, Row{RowID: int64(i + 1), Entry: greylist.Entry{ID: greylist.ID(id(i))}}); len(rows) == cap(rows) {
			s.Fill(rows)
			rows = rows[:0]
		}
	}
	s.Fill(rows)
}

type noBacking struct{}

func (noBacking) Load(context.Context, int64) (Row, bool, error) {
	return Row{}, false, errors.New("nothing is there to load")
}

// heapOf returns how much do adds to the heap.
func heapOf(do func()) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	do()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc)
}

// BenchmarkMemory says what an entry costs, in memory and away.
func BenchmarkMemory(b *testing.B) {
	const n = 1 << 20
	b.Run("here", func(b *testing.B) { benchMemory(b, n, 1<<30) })
	b.Run("away", func(b *testing.B) { benchMemory(b, n, n*awaySize) })
}

func benchMemory(b *testing.B, n int, memory int64) {
	for b.Loop() {
		s := New(Options{Memory: memory, Backing: noBacking{}})
		used := heapOf(func() {
			fill(s, n, func(i int) string {
				return fmt.Sprintf("198.51.100.0/24 sender%025d@example.org recipient@example.net", i)
			})
		})
		b.ReportMetric(float64(used)/float64(n), "octets/entry")
		runtime.KeepAlive(s)
	}
}

// A file that was edited by hand may have an ID without octets.
func TestTextWithoutOctets(t *testing.T) {
	var all text
	all.add(greylist.ID(strings.Repeat("x", textBlock)))
	if got := all.at(all.add(""), 0); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
