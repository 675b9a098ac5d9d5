package dnsbl

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Point is one question of a self-test.
type Point struct {
	Subject string // "127.0.0.2", "test"
	Listed  bool   // what a working zone says
	Codes   []Code
	Failure *Failure
	Took    time.Duration

	// Optional: the zone may leave it unlisted or unanswered. Many lists have no
	// IPv6, and of several test names one is enough.
	Optional bool

	labels string
}

// OK tells whether the zone said what it should.
func (p *Point) OK() bool {
	return p.Failure == nil && (len(p.Codes) > 0) == p.Listed
}

// TestResult is what a self-test found.
type TestResult struct {
	Status  Status // of the zone, after the test
	Problem Problem
	Cause   string
	Points  []Point
}

// SelfTest tests every zone now and puts the results in force.
func (l *Lists) SelfTest(ctx context.Context) ([]TestResult, error) {
	zones := l.zones()
	results := make([]TestResult, len(zones))
	var running sync.WaitGroup
	for i, z := range zones {
		running.Go(func() { results[i] = l.test(ctx, z) })
	}
	running.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("dnsbl: self-test: %w", context.Cause(ctx))
	}
	for i, z := range zones {
		l.apply(z, results[i])
		results[i].Status = z.status()
	}
	l.wakeUp() // reports are Run's
	return results, nil
}

// test asks all points of one zone at once.
func (l *Lists) test(ctx context.Context, z *zone) TestResult {
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	t := TestResult{Status: z.status(), Points: l.points(z)}
	var running sync.WaitGroup
	for i := range t.Points {
		p := &t.Points[i]
		running.Go(func() {
			started := time.Now()
			p.Codes, p.Failure = l.resolve(ctx, z, p.labels)
			p.Took = time.Since(started)
			if p.Failure != nil {
				p.Failure.Subject = p.Subject
			}
		})
	}
	running.Wait()
	t.Problem, t.Cause = judge(t.Points)
	return t
}

// points are the test entries of RFC 5782 section 5, and one subject that
// nobody has asked about: the answers to the others may come from caches while
// the zone has begun to refuse. It lies where no list has entries.
func (l *Lists) points(z *zone) []Point {
	if z.kind == KindAddress {
		n := l.config.Random()
		fresh := netip.AddrFrom4([4]byte{127, 128 | byte(n), byte(n >> 8), byte(n >> 16)})
		return []Point{
			addressPoint(netip.AddrFrom4([4]byte{127, 0, 0, 2}), true, false),
			addressPoint(netip.AddrFrom4([4]byte{127, 0, 0, 1}), false, false),
			addressPoint(fresh, false, false),
			addressPoint(netip.MustParseAddr("::ffff:127.0.0.2"), true, true),
			addressPoint(netip.MustParseAddr("::ffff:127.0.0.1"), false, true),
		}
	}
	points := []Point{
		namePoint("invalid", false, false),
		namePoint("postern-"+strconv.FormatUint(l.config.Random(), 36)+".invalid", false, false),
	}
	tests := z.table.tests
	if len(tests) == 0 {
		tests = []string{"test"}
	}
	for _, name := range tests {
		points = append(points, namePoint(name, true, len(tests) > 1))
	}
	return points
}

func addressPoint(addr netip.Addr, listed, optional bool) Point {
	return Point{Subject: addr.String(), labels: Reversed(addr), Listed: listed, Optional: optional}
}

func namePoint(name string, listed, optional bool) Point {
	return Point{Subject: name, labels: name, Listed: listed, Optional: optional}
}

// judge finds the worst that the points show: a refusal, a zone that lists what
// none may, questions without answer, a zone without its test entry.
func judge(points []Point) (Problem, string) {
	var worst Failure
	rank, listed := 0, false
	for i := range points {
		p := &points[i]
		found, r := p.finding()
		if r > rank {
			worst, rank = found, r
		}
		listed = listed || p.Listed && p.OK()
	}
	if rank == 0 && !listed {
		return ListsNothing, "no test entry is listed"
	}
	return worst.Problem, worst.Cause
}

// finding is what one point shows, and how much it weighs: 0 for nothing.
func (p *Point) finding() (Failure, int) {
	f := p.Failure
	transient := f != nil && (f.Problem == NoAnswer || f.Problem == Failing)
	switch {
	case f != nil && !transient:
		return *f, 4
	case f == nil && !p.Listed && len(p.Codes) > 0:
		return Failure{Problem: ListsEverything, Cause: fmt.Sprintf("%s is listed (%s)", p.Subject, p.Codes[0].Addr)}, 3
	case p.Optional:
	case transient:
		return *f, 2
	case p.Listed && len(p.Codes) == 0:
		return Failure{Problem: ListsNothing, Cause: p.Subject + " is not listed"}, 1
	}
	return Failure{}, 0
}

func randomNumber() uint64 { return rand.Uint64() }
