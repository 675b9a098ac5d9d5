package resolver

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestTTLBounds(t *testing.T) {
	b := ttlBounds{min: 5 * time.Second, max: time.Hour, maxNegative: time.Minute}
	for _, c := range []struct {
		got, want time.Duration
	}{
		{b.positive(0), 5 * time.Second},
		{b.positive(60), time.Minute},
		{b.positive(1<<31 - 1), time.Hour},
		{b.negative(false, 60), 0},
		{b.negative(true, 0), 5 * time.Second},
		{b.negative(true, 30), 30 * time.Second},
		{b.negative(true, 86400), time.Minute},
		{ttlBounds{max: time.Hour}.positive(0), 0},
	} {
		if c.got != c.want {
			t.Errorf("%v, want %v", c.got, c.want)
		}
	}
}

func kept(text string, expires time.Time) outcome {
	return outcome{answer: Answer{TXT: []string{text}}, expires: expires}
}

func TestShardForgetsTheLeastRecentlyUsed(t *testing.T) {
	now := time.Now()
	s := newShards(16 << 10)[0]
	key := func(i int) question { return question{fmt.Sprintf("n%03d.example", i), TypeTXT} }
	last := 0
	for s.evictions == 0 {
		s.put(key(last), kept("x", now.Add(time.Minute)))
		if _, ok := s.get(key(0), now); !ok {
			t.Fatal("the entry in use was dropped")
		}
		last++
	}
	if _, ok := s.get(key(1), now); ok {
		t.Error("the least recently used entry stayed")
	}
	if _, ok := s.get(key(last-1), now); !ok {
		t.Error("the latest entry is gone")
	}
}

func TestShardExpiresAndReplaces(t *testing.T) {
	now := time.Now()
	s := newShards(16 << 10)[0]
	q := question{"a.example", TypeTXT}
	s.put(q, kept("long text that costs", now.Add(time.Minute)))
	s.put(q, kept("x", now.Add(time.Second)))
	if len(s.entries) != 1 || s.bytes != s.entries[q].cost {
		t.Errorf("%d entries, %d bytes after a replacement", len(s.entries), s.bytes)
	}
	if _, ok := s.get(q, now.Add(time.Second)); ok {
		t.Error("an expired entry was returned")
	}
	if len(s.entries) != 0 || s.bytes != 0 {
		t.Errorf("%d entries, %d bytes after expiry", len(s.entries), s.bytes)
	}
	s.put(q, kept(strings.Repeat("x", 20<<10), now.Add(time.Minute)))
	if len(s.entries) != 0 {
		t.Error("an answer larger than the shard was kept")
	}
}

func TestShardsNumber(t *testing.T) {
	for limit, want := range map[int64]int{-1: 1, 0: 1, 1 << 10: 1, 1 << 20: 4, 16 << 20: 64, 1 << 30: 64} {
		if got := len(newShards(limit)); got != want {
			t.Errorf("%d bytes: %d shards, want %d", limit, got, want)
		}
	}
}

// The cost of the entries must not be lower than the memory that the heap really
// uses.
func TestCostIsHonest(t *testing.T) {
	const limit = 8 << 20
	now := time.Now()
	for name, make := range map[string]func(i int) outcome{
		"txt": func(i int) outcome { return kept(strings.Repeat("v", 40+i%200), now.Add(time.Hour)) },
		"tlsa": func(i int) outcome {
			rr := &dns.TLSA{Usage: 3, Certificate: strings.Repeat("ab", 32+i%4)}
			return outcome{answer: Answer{Records: []dns.RR{rr}}, expires: now.Add(time.Hour)}
		},
		"absent": func(int) outcome { return outcome{answer: Answer{Status: StatusNXDomain}, expires: now.Add(time.Hour)} },
		"failed": func(int) outcome {
			return outcome{fail: &failure{cause: ServFail, server: "s"}, expires: now.Add(time.Hour)}
		},
		"address": func(i int) outcome {
			return outcome{answer: Answer{Addrs: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, byte(i)})}}, expires: now.Add(time.Hour)}
		},
	} {
		before := heap()
		s := newShards(limit)[:1]
		s[0].limit = limit
		for i := range 60_000 {
			s[0].put(question{fmt.Sprintf("name-%d.example.org", i), TypeTXT}, make(i))
		}
		grown := heap() - before
		if claimed := s[0].bytes; grown > claimed*5/4 || claimed > limit {
			t.Errorf("%s: %d entries claim %d bytes and hold %d", name, len(s[0].entries), claimed, grown)
		}
		runtime.KeepAlive(s)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
