package dnsbl

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// After failureLimit questions in a row without an answer, a zone is broken.
	// One refusal is enough.
	failureLimit = 5
	// testInterval is the time between the self-tests of a zone in service.
	testInterval = 15 * time.Minute
	// A broken zone is tested at once, then after retryFirst, then at intervals
	// that double up to retryMax.
	retryFirst = 5 * time.Second
	retryMax   = 10 * time.Minute
	// For trustTime after a zone works again, a refusal counts only when a
	// self-test confirms it: caches may still hold earlier refusals.
	trustTime = time.Hour
	// testTimeout limits the time of one self-test.
	testTimeout = 20 * time.Second
	// firstTestWait is the longest wait of a request for the first self-test of a zone.
	firstTestWait = 2 * time.Second
	// A zone that holds firstRow subjects in a row may list everything: it is tested.
	// When it passes, it takes twice as many until the next test, up to lastRow.
	// Where most clients are listed, long rows are usual.
	firstRow = 10
	lastRow  = 640
)

// health is the state of a breaker. It is replaced, never changed.
type health struct {
	problem Problem
	cause   string
	since   time.Time // zero: since the start
}

// Status is the state of one zone.
type Status struct {
	Zone    string // its public name
	Kind    Kind
	Sites   []Site
	Problem Problem // Healthy: in service
	Cause   string
	Since   time.Time // zero: since the start
}

// Change is the new state of a zone.
type Change struct {
	Status
	Before Problem
}

// Status returns the state of every zone, those of addresses first.
func (l *Lists) Status() []Status {
	var out []Status
	for _, z := range l.zones() {
		out = append(out, z.status())
	}
	return out
}

// problem returns why the zone is out of service.
func (z *zone) problem() Problem { return z.state.Load().problem }

func (z *zone) status() Status {
	h := z.state.Load()
	return Status{Zone: z.public, Kind: z.kind, Sites: z.sites, Problem: h.problem, Cause: h.cause, Since: h.since}
}

// blame counts a question without an answer for its zone.
func (l *Lists) blame(z *zone, f *Failure) {
	if transient := f.Problem == NoAnswer || f.Problem == Failing; transient && z.failures.Add(1) < failureLimit {
		return
	}
	h := z.state.Load()
	now := l.config.Now()
	switch {
	case h.problem != Healthy:
		return
	case !z.tests.Off && !h.since.IsZero() && now.Sub(h.since) < trustTime:
		z.suspect.Store(true)
	default:
		z.state.CompareAndSwap(h, &health{f.Problem, f.Cause, now})
	}
	l.wakeUp()
}

// countRow counts the listings of a zone in a row. A list that begins to list everything
// must not refuse all mail until the next self-test.
func (l *Lists) countRow(z *zone, listed bool) {
	if !listed {
		if z.inRow.Load() != 0 {
			z.inRow.Store(0)
		}
		return
	}
	if z.inRow.Add(1) == z.longRow.Load() {
		z.suspect.Store(true)
		l.wakeUp()
	}
}

func (l *Lists) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default: // Run is woken already
	}
}

// apply sets the state of a zone from the result of a self-test.
func (l *Lists) apply(z *zone, t TestResult) {
	h := z.state.Load()
	z.suspect.Store(false)
	row := z.inRow.Swap(0)
	if t.Problem == Healthy {
		z.failures.Store(0)
		if long := z.longRow.Load(); row >= long {
			z.longRow.Store(min(2*long, lastRow))
		}
	}
	if h.problem != t.Problem {
		z.state.CompareAndSwap(h, &health{t.Problem, t.Cause, l.config.Now()})
	}
	z.closeOnce.Do(func() { close(z.tested) })
}

// patient holds what Run remembers about a zone.
type patient struct {
	*zone
	reported Problem
	strikes  int       // self-tests that failed in a row
	lastTest time.Time // or the end of the last rest, for a zone without tests
	due      time.Time
	resting  bool // out of service until due, without a test
}

// Run tests every zone at once and then periodically, and reports changes. It
// returns when ctx ends. Without Run, a broken zone stays out of service.
func (l *Lists) Run(ctx context.Context) {
	var patients []*patient
	for _, z := range l.zones() {
		patients = append(patients, &patient{zone: z})
	}
	for ctx.Err() == nil {
		l.visit(ctx, patients)
		if !l.rest(ctx, patients) {
			return
		}
		now := l.config.Now()
		for _, p := range patients {
			p.hurry(now)
		}
	}
}

// visit reports changes, tests the zones that are due, and reports the changes from
// these tests.
func (l *Lists) visit(ctx context.Context, patients []*patient) {
	l.report(patients)
	var due []*patient
	now := l.config.Now()
	for _, p := range patients {
		if !p.due.After(now) {
			due = append(due, p)
		}
	}
	results := make([]TestResult, len(due))
	var running sync.WaitGroup
	for i, p := range due {
		if p.tests.Off {
			continue // the zero result means healthy: its rest is over
		}
		running.Go(func() { results[i] = l.test(ctx, p.zone) })
	}
	running.Wait()
	if ctx.Err() != nil {
		return // the result of an interrupted test does not count
	}
	for i, p := range due {
		l.apply(p.zone, results[i])
		p.tested(l.config.Now(), results[i].Problem)
	}
	l.report(patients)
}

// tested plans the next test.
func (p *patient) tested(now time.Time, problem Problem) {
	if p.tests.Off {
		if p.resting {
			p.lastTest, p.resting = now, false
		}
		p.due = now.Add(testInterval)
		return
	}
	p.lastTest = now
	if problem == Healthy {
		p.strikes = 0
		// Zones that were tested together are tested at different times later.
		p.due = now.Add(testInterval + rand.N(testInterval/10))
		return
	}
	p.due = now.Add(min(retryFirst<<min(p.strikes, 10), retryMax))
	p.strikes++
}

// hurry moves the test of a zone forward if the zone broke, or may have broken,
// since its last test.
func (p *patient) hurry(now time.Time) {
	if p.tests.Off {
		p.rest(now)
		return
	}
	broke := p.problem() != Healthy && p.strikes == 0
	if !broke && !p.suspect.Load() {
		return
	}
	soon := p.lastTest.Add(retryFirst)
	if broke || soon.Before(now) {
		soon = now
	}
	if soon.Before(p.due) {
		p.due = soon
	}
}

// rest takes a broken zone without self-tests out of service for some time. The
// time grows each time, until the zone has worked for trustTime.
func (p *patient) rest(now time.Time) {
	if p.resting || p.problem() == Healthy {
		return
	}
	if now.Sub(p.lastTest) > trustTime {
		p.strikes = 0
	}
	p.resting, p.due = true, now.Add(min(retryFirst<<min(p.strikes, 10), retryMax))
	p.strikes++
}

// rest waits until the next test is due or a breaker opens. It returns false when
// ctx has ended.
func (l *Lists) rest(ctx context.Context, patients []*patient) bool {
	wait := testInterval
	now := l.config.Now()
	for _, p := range patients {
		wait = min(wait, p.due.Sub(now))
	}
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.wake:
	case <-ctx.Done():
		return false
	}
	return true
}

func (l *Lists) report(patients []*patient) {
	for _, p := range patients {
		if s := p.status(); s.Problem != p.reported {
			l.config.Report(Change{Status: s, Before: p.reported})
			p.reported = s.Problem
		}
	}
}
