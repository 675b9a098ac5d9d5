package dnsbl

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// failureLimit is how many questions in a row have to stay without answer
	// before the zone counts as broken. One refusal is enough.
	failureLimit = 5
	// testInterval is the time between the self-tests of a zone in service.
	testInterval = 15 * time.Minute
	// A broken zone is tested at once, then after retryFirst, and from there at
	// intervals that double up to retryMax.
	retryFirst = 5 * time.Second
	retryMax   = 10 * time.Minute
	// trustTime is how long after a zone has healed a refusal is only believed
	// when a self-test confirms it: caches still hold those of before.
	trustTime = time.Hour
	// testTimeout bounds one self-test.
	testTimeout = 20 * time.Second
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

// Change is a zone's new state.
type Change struct {
	Status
	Before Problem
}

// Status gives the state of every zone, addresses first.
func (l *Lists) Status() []Status {
	var out []Status
	for _, z := range l.zones() {
		out = append(out, z.status())
	}
	return out
}

func (z *zone) status() Status {
	h := z.state.Load()
	return Status{Zone: z.public, Kind: z.kind, Sites: z.sites, Problem: h.problem, Cause: h.cause, Since: h.since}
}

// blame notes a question without answer at its zone.
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

func (l *Lists) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default: // it is woken already
	}
}

// apply puts the result of a self-test in force.
func (l *Lists) apply(z *zone, t TestResult) {
	h := z.state.Load()
	z.suspect.Store(false)
	if t.Problem == Healthy {
		z.failures.Store(0)
	}
	if h.problem != t.Problem {
		z.state.CompareAndSwap(h, &health{t.Problem, t.Cause, l.config.Now()})
	}
}

// patient is what Run remembers of a zone.
type patient struct {
	*zone
	reported Problem
	strikes  int       // self-tests that failed in a row
	lastTest time.Time // or the end of the last rest
	due      time.Time
	resting  bool // out of service until due, without a test
}

// Run tests every zone at once and then periodically, and reports changes. It
// returns when ctx ends. Without it a broken zone stays so.
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

// visit reports what has changed, tests the zones that are due, and reports
// what that changed.
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
			continue // the zero result is health: its rest is over
		}
		running.Go(func() { results[i] = l.test(ctx, p.zone) })
	}
	running.Wait()
	if ctx.Err() != nil {
		return // a test that was stopped says nothing
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
		// Zones that were tested together need not stay together.
		p.due = now.Add(testInterval + rand.N(testInterval/10))
		return
	}
	p.due = now.Add(min(retryFirst<<min(p.strikes, 10), retryMax))
	p.strikes++
}

// hurry brings the test of a zone forward that broke since its last one, or is
// suspected to have.
func (p *patient) hurry(now time.Time) {
	if p.tests.Off {
		p.rest(now)
		return
	}
	broke := p.state.Load().problem != Healthy && p.strikes == 0
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

// rest gives a zone without self-tests that broke its time out of service, each
// time longer until it has been well for trustTime.
func (p *patient) rest(now time.Time) {
	if p.resting || p.state.Load().problem == Healthy {
		return
	}
	if now.Sub(p.lastTest) > trustTime {
		p.strikes = 0
	}
	p.resting, p.due = true, now.Add(min(retryFirst<<min(p.strikes, 10), retryMax))
	p.strikes++
}

// rest waits until the next test is due or a breaker opens; false means that
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
