package memstore

import (
	"fmt"
	"math/rand/v2"
	"runtime"
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
			table.slots[slot].triplet.Last = greylist.Stamp(step)
			model[id] = greylist.Stamp(step)
		case table.id(slot) != id || table.slots[slot].triplet.Last != model[id]:
			t.Fatalf("seed %d, step %d: %.20s is %+v", seed, step, id, table.entry(slot))
		default:
			table.remove(slot)
			delete(model, id)
		}
	}
	n, text := 0, 0
	table.all(func(slot int) {
		n, text = n+1, text+len(table.name(&table.slots[slot]))
		if _, known := model[table.id(slot)]; !known {
			t.Errorf("%.20s should have gone", table.id(slot))
		}
	})
	if n != len(model) || n != table.live || len(table.text) > 2*text+minWaste {
		t.Errorf("%d entries of %d, %d octets for %d", n, len(model), len(table.text), text)
	}
}

// BenchmarkMemory says what an entry costs, in memory and away.
func BenchmarkMemory(b *testing.B) {
	const n = 1 << 20
	b.Run("here", func(b *testing.B) { benchMemory(b, n, 2*n) })
	b.Run("away", func(b *testing.B) { benchMemory(b, n, n/8) })
}

func benchMemory(b *testing.B, n, room int) {
	var before, after runtime.MemStats
	for b.Loop() {
		s := New(Options{MaxEntries: room})
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range n {
			s.Fill(Row{RowID: 1, Entry: greylist.Entry{ID: greylist.ID(fmt.Sprintf("198.51.100.0/24 sender%025d@example.org recipient@example.net", i))}})
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "octets/entry")
		runtime.KeepAlive(s)
	}
}
