package memstore

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/limit"
)

// TestSmallTables counts with far more values than the tables have room for. What a
// counter has reserved is what transactions have reserved in it, although slots are used
// again, and each counter is found.
func TestSmallTables(t *testing.T) {
	rules := []*limit.Rule{
		{Key: limit.Login, Unit: limit.Recipients, Count: 1 << 40, Window: time.Hour},
		{Key: limit.Login, Unit: limit.Recipients, Count: 1 << 40, Window: time.Minute},
		{Key: limit.Sender, Unit: limit.Recipients, Count: 1 << 40, Window: time.Hour},
		{Key: limit.Client, Unit: limit.Messages, Count: 1 << 40, Window: time.Hour},
	}
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 11))
		s := New(Options{Logins: 1 + r.IntN(8), Strangers: 1 + r.IntN(8)})
		s.Follow()
		now := time.Now()
		for step := range 400 {
			now = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
			op := &limit.Op{Txn: limit.DigestOf(fmt.Append(nil, r.IntN(20))), Part: limit.DigestOf(fmt.Append(nil, r.IntN(5))), Reserve: r.IntN(3) > 0, Now: now}
			value := fmt.Sprint(r.IntN(12))
			for _, rule := range rules {
				op.Items = append(op.Items, limit.Item{ID: limit.CounterID(rule, value), Rule: rule, Amount: 1, Once: rule.Unit == limit.Messages})
			}
			if r.IntN(4) == 0 {
				op.Step = limit.End
			}
			smallStep(t, s, op, r.IntN(12))
			checkTables(t, s)
			if t.Failed() {
				t.Fatalf("seed %d, step %d", seed, step)
			}
		}
	}
}

// smallStep does one of many things with a store.
func smallStep(t *testing.T, s *Store, op *limit.Op, what int) {
	t.Helper()
	var err error
	switch what {
	case 0, 1:
		err = s.Undo(t.Context(), op)
	case 2:
		_, err = s.Reset(t.Context(), []string{op.Items[0].ID.String(), op.Items[2].ID.String()})
	case 3:
		s.Purge(op.Now, 3)
	case 4:
		s.TakeBatch(5)
	case 5:
		s.Failed(s.TakeBatch(5))
	case 6:
		err = s.Add(t.Context(), op)
	default:
		var a limit.Answer
		a, err = s.Take(t.Context(), op)
		if a.Refused {
			t.Errorf("%+v is refused", op)
		}
		for i, u := range a.Uses {
			if u.Used < 1 && !a.Repeat && op.Step == limit.Name && op.Items[i].Rule.Unit == limit.Recipients {
				t.Errorf("item %d has %d", i, u.Used)
			}
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// checkTables checks that everything about counters agrees.
func checkTables(t *testing.T, s *Store) {
	t.Helper()
	reserved := make(map[ref]int64)
	for txn := range s.txns.all {
		for i := range txn.held.len {
			reserved[txn.held.at(i).counter] += txn.held.at(i).reserved
		}
	}
	all := 0
	for i := range s.tables {
		table := &s.tables[i]
		n := 0
		for c := range table.all() {
			n++
			if table.find(c.id) != c || s.at(c.ref) != c || budgetOf(c.logins) != i {
				t.Errorf("%v is not found", c.id)
			}
			if c.reserved != reserved[c.ref] {
				t.Errorf("%v has reserved %d, transactions have %d", c.id, c.reserved, reserved[c.ref])
			}
		}
		if n != table.len || n > max(table.most, 2) { // an op has two counters of each table
			t.Errorf("table %d has %d counters, says %d, of at most %d", i, n, table.len, table.most)
		}
		all += n
	}
	if used := int(s.counters.slots()) - len(s.counters.free); used != all {
		t.Errorf("%d slots for %d counters", used, all)
	}
	if most := 4 * (s.tables[logins].most + s.tables[strangers].most); len(s.dirty) > most || len(s.unsettled) > most {
		t.Errorf("%d dirty and %d unsettled counters", len(s.dirty), len(s.unsettled))
	}
}
