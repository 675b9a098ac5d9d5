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
	Listed  bool   // the answer of a working zone
	Codes   []Code
	Failure *Failure
	Took    time.Duration

	// Optional: the zone works even if this is not listed or not answered. Many
	// lists have no IPv6, and of several test names one is enough.
	Optional bool

	labels string
}

// OK reports whether the zone answered as it should.
func (p *Point) OK() bool {
	return p.Failure == nil && (len(p.Codes) > 0) == p.Listed
}

// TestResult is the result of a self-test.
type TestResult struct {
	Status  Status // of the zone, after the test
	Problem Problem
	Cause   string
	Points  []Point
	Off     bool // the zone is not to be tested
}

// SelfTest tests every zone now and sets the states of the zones.
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
	l.wakeUp() // Run reports the changes
	return results, nil
}

// test asks one zone about all its points at once. A zone that is not tested keeps
// its state.
func (l *Lists) test(ctx context.Context, z *zone) TestResult {
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	t := TestResult{Status: z.status()}
	if z.tests.Off {
		t.Off, t.Problem, t.Cause = true, t.Status.Problem, t.Status.Cause
		return t
	}
	t.Points = l.points(z)
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
	t.Problem, t.Cause = worstProblem(t.Points)
	return t
}

// points returns the zone's own test entries or those of RFC 5782 section 5, and a
// random subject that is in no cache. Answers for the test entries may come from
// caches when the zone refuses already. The random subject is one that no list
// holds.
func (l *Lists) points(z *zone) []Point {
	own := z.tests.Listed
	if z.kind == KindName {
		points := []Point{
			newPoint("invalid", false, false),
			newPoint("postern-"+strconv.FormatUint(l.config.Random(), 36)+".invalid", false, false),
		}
		if len(own) == 0 {
			own = []string{"test"}
		}
		return append(points, listedPoints(own)...)
	}
	n := l.config.Random()
	fresh := newPoint(netip.AddrFrom4([4]byte{127, 128 | byte(n), byte(n >> 8), byte(n >> 16)}).String(), false, false)
	if len(own) > 0 {
		return append(listedPoints(own), fresh)
	}
	return []Point{
		newPoint("127.0.0.2", true, false),
		newPoint("127.0.0.1", false, false),
		fresh,
		newPoint("::ffff:127.0.0.2", true, true),
		newPoint("::ffff:127.0.0.1", false, true),
	}
}

// listedPoints returns points for entries of which one must be listed.
func listedPoints(entries []string) []Point {
	var points []Point
	for _, e := range entries {
		points = append(points, newPoint(e, true, len(entries) > 1))
	}
	return points
}

func newPoint(subject string, listed, optional bool) Point {
	labels := subject
	if addr, err := netip.ParseAddr(subject); err == nil {
		labels = Reversed(addr)
	}
	return Point{Subject: subject, labels: labels, Listed: listed, Optional: optional}
}

// worstProblem returns the worst problem that the points show: a refusal, a zone that
// lists what no list may, questions without an answer, or a missing test entry.
func worstProblem(points []Point) (Problem, string) {
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

// finding returns the problem that one point shows, and its severity: 0 for no
// problem.
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
