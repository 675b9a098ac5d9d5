package memstore

import (
	"math/rand/v2"
	"testing"
)

// FuzzIndex compares an index, and the slab of its things, with a map. Hashes collide
// often.
func FuzzIndex(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		seed := make([]byte, 2000)
		for i := range seed {
			seed[i] = byte(r.UintN(256))
		}
		f.Add(seed, uint32(r.UintN(1<<8)), r.UintN(2) == 0)
	}
	f.Fuzz(func(t *testing.T, keys []byte, spread uint32, grow bool) {
		var things slab[byte]
		var x index
		want := map[byte]slot{}
		for i, key := range keys {
			hash := uint32(key) * spread
			is := func(n slot) bool { return *things.at(n) == key }
			n := x.find(hash, is)
			if n != want[key] {
				t.Fatalf("step %d: key %d has slot %d, want %d", i, key, n, want[key])
			}
			switch {
			case n == 0 && (grow || i%3 > 0):
				n = things.take()
				if *things.at(n) != 0 {
					t.Fatalf("step %d: slot %d has %d already", i, n, *things.at(n))
				}
				*things.at(n), want[key] = key, n
				x.add(hash, n)
			case n > 0:
				x.remove(hash, n)
				delete(want, key)
				things.give(n)
			}
		}
		used := 0
		for _, e := range x.entries {
			if e.thing != 0 {
				used++
			}
		}
		if used != len(want) || x.len != used {
			t.Fatalf("%d of %d things, want %d", used, x.len, len(want))
		}
		for key, n := range want {
			if x.find(uint32(key)*spread, func(n slot) bool { return *things.at(n) == key }) != n {
				t.Fatalf("key %d is lost", key)
			}
		}
	})
}
