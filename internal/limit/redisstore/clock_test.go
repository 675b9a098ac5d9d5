package redisstore_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/redisstore"
	"github.com/postern-mail/postern/internal/store/redistest"
)

func direct(t *testing.T, addr string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A server drops keys when their time is over, and earlier if its clock is set forward.
// What a mail without an end has reserved must not stay reserved because of that.
func TestReservationsOfDroppedMails(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := direct(t, server.Addr)
	s := open(t, redisstore.Options{URL: "redis://" + server.Addr, CallerClock: true, Timeout: patience})
	r := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 5, Window: time.Hour}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	name := func(at time.Time, txn string, amount int64) limit.Answer {
		t.Helper()
		a, err := s.Take(t.Context(), &limit.Op{Step: limit.Name, Txn: limit.DigestOf([]byte(txn)), Part: limit.Digest{1}, Reserve: true, Now: at,
			Items: []limit.Item{{ID: limit.CounterID(r, "bob"), Rule: r, Amount: amount}}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	name(at, "gone", 5)
	keys, err := client.Keys(t.Context(), "{postern}:lt:*").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("%v, %v", keys, err)
	}
	if left := client.PTTL(t.Context(), keys[0]).Val(); left < 12*time.Hour {
		t.Errorf("the server drops a mail after %s, perhaps before the next request", left)
	}
	if err := client.Del(t.Context(), keys...).Err(); err != nil {
		t.Fatal(err)
	}
	if a := name(at.Add(limit.HoldFor-time.Second), "early", 1); !a.Refused {
		t.Errorf("released too early: %+v", a)
	}
	if a := name(at.Add(limit.HoldFor+time.Second), "late", 1); a.Refused || a.Uses[0].Used != 1 {
		t.Errorf("reserved for ever: %+v", a)
	}
}

// A block lasts as long as it was set for, whatever the clock of the host says on which it
// was set.
func TestBlockOfAHostWithAWrongClock(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	url := "redis://" + server.Addr
	r := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 5, Window: time.Hour}
	wrong := open(t, redisstore.Options{URL: url, Timeout: patience})
	for login, off := range map[string]time.Duration{"behind": -24 * time.Hour, "ahead": 24 * time.Hour} {
		since := time.Now().Add(off)
		if err := wrong.SetBlock(t.Context(), limit.Block{Login: login, Since: since, Until: since.Add(time.Hour)}, false); err != nil {
			t.Fatal(err)
		}
	}
	right := open(t, redisstore.Options{URL: url, Timeout: patience})
	all, err := right.Blocks(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, b := range all {
		a, err := right.Take(t.Context(), &limit.Op{Txn: limit.Digest{1}, Part: limit.Digest{1}, Now: time.Now(), Block: b.Login,
			Items: []limit.Item{{ID: limit.CounterID(r, b.Login), Rule: r, Amount: 1}}})
		if err != nil || a.Blocked == nil {
			t.Fatalf("%s: %+v, %v", b.Login, a, err)
		}
		for _, until := range []time.Time{b.Until, a.Blocked.Until} {
			if left := time.Until(until); left > time.Hour+time.Minute || left < time.Hour-time.Minute {
				t.Errorf("%s is blocked for %s", b.Login, left)
			}
		}
	}
}

// Blocks that have ended are removed, and there are not too many.
func TestBlocksAreBounded(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := direct(t, server.Addr)
	s := open(t, redisstore.Options{URL: "redis://" + server.Addr, CallerClock: true, Timeout: patience})
	at := time.Now()
	pairs := make([]any, 0, 2*limit.MaxBlocks)
	for i := range limit.MaxBlocks {
		pairs = append(pairs, i, "1 2") // it has ended
	}
	if err := client.HSet(t.Context(), "{postern}:lb", pairs...).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.SetBlock(t.Context(), limit.Block{Login: "bob", Since: at}, false); err != nil {
		t.Fatal(err)
	}
	if n := client.HLen(t.Context(), "{postern}:lb").Val(); n != 1 {
		t.Errorf("%d blocks are kept", n)
	}
	for i := 1; i < len(pairs); i += 2 {
		pairs[i] = "1 0" // for ever
	}
	if err := client.HSet(t.Context(), "{postern}:lb", pairs[2:]...).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.SetBlock(t.Context(), limit.Block{Login: "eve", Since: at}, false); err == nil {
		t.Error("more blocks than the bound")
	}
	if err := s.SetBlock(t.Context(), limit.Block{Login: "bob", Since: at, Until: at.Add(time.Hour)}, false); err != nil {
		t.Errorf("a block is changed: %v", err)
	}
}
