package memstore

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/limit"
)

// TestBatchesThatFail writes transactions in batches, of which many fail, while mails end,
// are undone and are forgotten. What was written at last is what memory has.
func TestBatchesThatFail(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 9))
		s := New(Options{})
		s.Follow()
		rule := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 1 << 40, Window: time.Hour, Action: limit.Defer}
		now := time.Now()
		var file [][]byte
		write := func(failing bool) {
			for {
				b := s.TakeBatch(1 + r.IntN(5))
				if b.Empty() {
					return
				}
				if failing && r.IntN(3) == 0 {
					s.Failed(b)
					return
				}
				file = append(file, append([]byte(nil), b.Transactions...))
			}
		}
		for range 2000 {
			now = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
			var part limit.Digest
			binary.LittleEndian.PutUint32(part[:], 1+r.Uint32N(12))
			op := &limit.Op{
				Step: limit.Name, Txn: limit.DigestOf(fmt.Append(nil, r.IntN(30))), Part: part, Now: now,
				Items: []limit.Item{{ID: limit.CounterID(rule, fmt.Sprint(r.IntN(3))), Rule: rule, Amount: 1}},
			}
			if r.IntN(4) == 0 {
				op.Step = limit.End
			}
			var err error
			if r.IntN(5) == 0 {
				err = s.Undo(t.Context(), op)
			} else {
				_, err = s.Take(t.Context(), op)
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.IntN(10) == 0 {
				write(r.IntN(2) == 0)
			}
		}
		write(false)
		asWritten(t, s, file, now)
	}
}

// asWritten compares the transactions of a store with those that its file has.
func asWritten(t *testing.T, s *Store, file [][]byte, now time.Time) {
	t.Helper()
	found := make(map[limit.Digest]*txn)
	for _, batch := range file {
		for d := (Decoder{B: batch}); len(d.B) > 0; {
			one := s.decodeTxn(&d)
			if d.Err != nil {
				t.Fatal(d.Err)
			}
			found[one.name] = one
		}
	}
	n := 0
	for have := range s.txns.all {
		n++
		read := found[have.name]
		delete(found, have.name)
		switch {
		case read == nil || read.undone:
			t.Errorf("a transaction is not in the file: %+v", have)
		case read.done != have.done || !have.done && read.parts.len() != have.parts.len():
			t.Errorf("the file has %+v, want %+v", read, have)
		}
	}
	for _, read := range found {
		if !read.undone && read.ends > s.millis(now) {
			t.Errorf("the file has %+v, which is gone", read)
		}
	}
	used := len(s.txns.slab.blocks)*blockLen - len(s.txns.slab.free)
	if n != s.txns.len() || used < n || used > n+len(s.takenTxns) {
		t.Errorf("%d transactions in order, %d in the index, %d in slots, %d in the latest batch", n, s.txns.len(), used, len(s.takenTxns))
	}
}
