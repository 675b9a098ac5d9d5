package memstore_test

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
	"github.com/postern-mail/postern/internal/limit/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) limit.Store {
		return memstore.New(memstore.Options{Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)})
	})
}

func senderRule() *limit.Rule {
	return &limit.Rule{Key: limit.Sender, Unit: limit.Recipients, Count: 100, Window: time.Hour, Action: limit.Defer}
}

// A botnet of senders makes no login's count be forgotten, and needs bounded memory.
func TestStrangersPushNoOneOut(t *testing.T) {
	const most, senders = 4_000, 15 * 4_000
	s := memstore.New(memstore.Options{Strangers: most})
	now := time.Now()
	login := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 5, Window: time.Hour, Action: limit.Defer}
	take := func(r *limit.Rule, value string, txn string, amount int64) limit.Answer {
		a, err := s.Take(t.Context(), &limit.Op{Step: limit.End, Txn: limit.DigestOf([]byte(txn)), Now: now, Items: []limit.Item{{ID: limit.CounterID(r, value), Rule: r, Amount: amount}}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	take(login, "bob", "a", 5)
	take(senderRule(), "heavy@x.example", "b", 100)
	for i := range senders {
		take(senderRule(), "s"+strconv.Itoa(i)+"@x.example", "t"+strconv.Itoa(i), 1)
	}
	if !take(login, "bob", "c", 1).Refused {
		t.Error("the count of a login was forgotten")
	}
	if !take(senderRule(), "heavy@x.example", "d", 1).Refused {
		t.Error("the count of the sender that sends most was forgotten")
	}
	n := 0
	if err := s.Counters(t.Context(), "", now, func(limit.Counter) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	if n > most+1 {
		t.Errorf("%d counters", n)
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 60<<20 {
		t.Errorf("%d MB in use", m.HeapAlloc>>20)
	}
}

// Blocks that have ended make room for new ones.
func TestEndedBlocksMakeRoom(t *testing.T) {
	s, at := memstore.New(memstore.Options{}), time.Now()
	block := func(login string, since, until time.Time) error {
		return s.SetBlock(t.Context(), limit.Block{Login: login, Since: since, Until: until}, false)
	}
	for i := range limit.MaxBlocks {
		if err := block(strconv.Itoa(i), at, at.Add(time.Duration(1+i%2)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := block("eve", at, time.Time{}); !errors.Is(err, limit.ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	if err := block("eve", at.Add(time.Hour), time.Time{}); err != nil {
		t.Error(err)
	}
	if all, err := s.Blocks(t.Context()); err != nil || len(all) != limit.MaxBlocks/2+1 {
		t.Errorf("%d blocks, %v", len(all), err)
	}
}

func BenchmarkTake(b *testing.B) {
	s := memstore.New(memstore.Options{})
	hour := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 1 << 40, Window: time.Hour}
	day := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 1 << 41, Window: 24 * time.Hour}
	ids := [2]limit.ID{limit.CounterID(hour, "bob"), limit.CounterID(day, "bob")}
	n := 0
	name := make([]byte, 0, 20)
	b.ReportAllocs()
	for b.Loop() {
		n++
		items := []limit.Item{{ID: ids[0], Rule: hour, Amount: 1}, {ID: ids[1], Rule: day, Amount: 1}}
		if _, err := s.Take(b.Context(), &limit.Op{Txn: limit.DigestOf(fmt.Append(name[:0], n)), Part: limit.Digest{1}, Reserve: true, Now: time.Now(), Items: items}); err != nil {
			b.Fatal(err)
		}
	}
}
