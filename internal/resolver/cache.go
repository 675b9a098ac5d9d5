package resolver

import (
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"github.com/miekg/dns"
)

// failureTTL is how long a failed lookup is remembered (RFC 9520 section 3.2 asks
// for 1 to 300 seconds): long enough that one message does not ask a broken zone
// again and again, short enough to notice when it works again.
const failureTTL = 5 * time.Second

// ttlBounds limit the TTLs of the records.
type ttlBounds struct{ min, max, maxNegative time.Duration }

func (b ttlBounds) positive(seconds uint32) time.Duration {
	return min(max(time.Duration(seconds)*time.Second, b.min), b.max)
}

// negative returns how long an absence is kept. Without an SOA record that proves
// it, it is not kept (RFC 2308 section 5).
func (b ttlBounds) negative(soa bool, seconds uint32) time.Duration {
	if !soa {
		return 0
	}
	return min(b.positive(seconds), b.maxNegative)
}

// outcome is the end of a lookup: an answer or a failure.
type outcome struct {
	answer  Answer // its TTL is that at the time of arrival
	fail    *failure
	expires time.Time // zero: not kept
}

// The number of shards depends on the bound: each shard must have room for several
// of the largest answers (maxRecords names) and many usual ones.
const (
	maxShards     = 64
	minShardBytes = 256 << 10
)

// shard is one part of the cache, with its own lock and the questions in flight
// that belong to it. Its entries are in a ring, the last used first.
type shard struct {
	mu        sync.Mutex
	entries   map[question]*entry
	flights   map[question]*flight
	ring      entry // head: ring.next is the latest used
	bytes     int64
	limit     int64
	hits      uint64
	misses    uint64
	evictions uint64
}

type entry struct {
	key        question
	out        outcome
	cost       int64
	prev, next *entry
}

// newShards divides limit bytes among shards (negative: nothing is kept). The
// number of shards is a power of two.
func newShards(limit int64) []*shard {
	limit = max(limit, 0)
	n := 1
	for n < maxShards && limit/int64(2*n) >= minShardBytes {
		n *= 2
	}
	shards := make([]*shard, n)
	for i := range shards {
		s := &shard{
			entries: map[question]*entry{},
			flights: map[question]*flight{},
			limit:   limit / int64(n),
		}
		s.ring.prev, s.ring.next = &s.ring, &s.ring
		shards[i] = s
	}
	return shards
}

// get returns the outcome that is kept for q. The caller holds the lock.
func (s *shard) get(q question, now time.Time) (*outcome, bool) {
	e, ok := s.entries[q]
	if !ok {
		return nil, false
	}
	if !now.Before(e.out.expires) {
		s.remove(e)
		return nil, false
	}
	s.hits++
	if s.ring.next != e {
		e.unlink()
		s.ring.push(e)
	}
	return &e.out, true
}

// put keeps out until it expires, or until room is needed and it is the least
// recently used. The caller holds the lock.
func (s *shard) put(q question, out outcome) {
	if old, ok := s.entries[q]; ok {
		s.remove(old)
	}
	e := &entry{key: q, out: out, cost: cost(q, &out)}
	if e.cost > s.limit {
		return
	}
	for s.bytes+e.cost > s.limit {
		s.remove(s.ring.prev)
		s.evictions++
	}
	s.entries[q] = e
	s.ring.push(e)
	s.bytes += e.cost
}

func (s *shard) remove(e *entry) {
	delete(s.entries, e.key)
	e.unlink()
	s.bytes -= e.cost
}

func (e *entry) unlink() {
	e.prev.next, e.next.prev = e.next, e.prev
}

// push puts e behind the head.
func (e *entry) push(latest *entry) {
	latest.prev, latest.next = e, e.next
	e.next.prev = latest
	e.next = latest
}

// The memory of an entry besides its strings. A map slot holds key and pointer;
// after growth about half of the slots are in use. An allocation is rounded up to
// its size class.
const (
	mapSlot      = 2 * int64(unsafe.Sizeof(question{})+unsafe.Sizeof((*entry)(nil))+1)
	entryBytes   = int64(unsafe.Sizeof(entry{})) + mapSlot
	failureBytes = int64(unsafe.Sizeof(failure{})) + 128
	addrBytes    = int64(unsafe.Sizeof(netip.Addr{}))
	textBytes    = int64(unsafe.Sizeof(""))
	mxBytes      = int64(unsafe.Sizeof(MX{}))
	recordBytes  = int64(unsafe.Sizeof(dns.RR(nil)))
	soaBytes     = int64(unsafe.Sizeof(dns.SOA{})) + 4*roundUp
	recordText   = 4 // bytes of text for one of a packet: \255
	roundUp      = 16
)

// cost estimates how many bytes of heap q and out hold.
func cost(q question, out *outcome) int64 {
	n := entryBytes + text(q.name) + text(out.answer.Name)
	if out.fail != nil {
		return n + failureBytes
	}
	n += addrBytes * int64(cap(out.answer.Addrs))
	n += textBytes * int64(cap(out.answer.TXT)+cap(out.answer.Names))
	n += mxBytes * int64(cap(out.answer.MX))
	n += recordBytes * int64(cap(out.answer.Records))
	for _, list := range [][]string{out.answer.TXT, out.answer.Names} {
		for _, s := range list {
			n += text(s)
		}
	}
	for _, mx := range out.answer.MX {
		n += text(mx.Host)
	}
	for _, rr := range out.answer.Records {
		n += soaBytes + recordText*int64(dns.Len(rr)) // the largest type; octets as text
	}
	return n
}

func text(s string) int64 { return int64(len(s)) + roundUp }
