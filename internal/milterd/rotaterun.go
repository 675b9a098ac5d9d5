package milterd

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/rotate"
)

// Times and bounds of the work on rotations.
const (
	rotateEvery = time.Minute
	// rotateTimeout bounds the steps of one domain: well below leaseTime.
	rotateTimeout = 2 * time.Minute
	// rotateSpan is how long a round may go on before the lease is renewed.
	rotateSpan = 3 * time.Minute
	// maxStarts bounds the rotations that begin in one round.
	maxStarts = 4
	// minClockStep is how much the clock must be set to matter.
	minClockStep = 5 * time.Minute
)

// rotation rotates keys in the background.
type rotation struct {
	rotator *rotate.Rotator
	every   time.Duration
	lead    *lease
	log     *zap.Logger
	records record.Sink
	now     func() time.Time
	steady  func() time.Duration // a clock that no one sets
	ready   func() error         // returns why no record can be published now

	next    map[string]time.Time // when to look at a domain again
	problem string               // why the latest round failed
	leader  string               // the host that led in the latest round, "" if that is not known
	seen    atomic.Pointer[rotationsSeen]
	wall    time.Time     // of the machine's clock at the latest round
	passed  time.Duration // of the steady clock
}

// rotationsSeen is what the latest round found.
type rotationsSeen struct {
	leads    bool
	phases   map[rotate.Phase]int
	problems int
}

func newRotation(every time.Duration, lead *lease, n *needs) *rotation {
	began := time.Now()
	r := &rotation{every: every, lead: lead, log: n.Log, records: n.Records, now: time.Now, ready: func() error { return nil }, next: make(map[string]time.Time)}
	r.steady = func() time.Duration { return time.Since(began) }
	r.seen.Store(new(rotationsSeen))
	return r
}

// run rotates until ctx ends.
func (r *rotation) run(ctx context.Context) {
	for {
		r.round(ctx)
		wait := time.NewTimer(rotateEvery)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// round makes the steps that are due, if this host leads.
func (r *rotation) round(ctx context.Context) {
	step := r.clockStep()
	leads, holder, err := r.lead.take(ctx)
	if ctx.Err() != nil {
		return
	}
	if !leads {
		r.failed("lead", err)
		r.led(holder)
		clear(r.next)
		r.seen.Store(&rotationsSeen{problems: r.problems()})
		return
	}
	r.led(holder)
	if step != 0 {
		r.clockSet(step)
	}
	if !r.seen.Load().leads {
		r.resume()
	}
	began := r.now()
	what, problem := "publish", r.ready()
	if problem == nil { // else a new rotation would only wait
		what, problem = "folder", r.begin()
	}
	domains, err := r.rotator.UnderWay()
	if problem == nil {
		problem = err
	}
	for _, domain := range domains {
		if ctx.Err() != nil || r.now().Sub(began) > rotateSpan {
			break // the next round continues
		}
		if err := r.advance(ctx, domain); problem == nil {
			problem = err
		}
	}
	r.failed(what, problem)
	r.look(domains)
}

// led says once that a host leads, this or another one. Without an answer of Redis holder
// is "", and who leads then is said again.
func (r *rotation) led(holder string) {
	if r.lead == nil || holder == r.leader {
		return
	}
	r.leader = holder
	switch holder {
	case "":
	case r.lead.host:
		r.log.Info("this host rotates the DKIM keys now", zap.String("host", holder))
	default:
		r.log.Info("another host rotates the DKIM keys now", zap.String("host", holder))
	}
}

// clockStep returns by how much the machine's clock was set since the latest round, 0 if
// it was not.
func (r *rotation) clockStep() time.Duration {
	wall, passed := r.now().Round(0), r.steady()
	by, first := wall.Sub(r.wall)-(passed-r.passed), r.wall.IsZero()
	r.wall, r.passed = wall, passed
	if first || by.Abs() < minClockStep {
		return 0
	}
	return by
}

// clockSet moves the times of the rotations under way, so that no record goes early.
func (r *rotation) clockSet(by time.Duration) {
	err := r.rotator.ClockSet(by)
	r.log.Error("the clock was set, the waits of key rotations under way stay as long as they were; let NTP keep the time",
		zap.Duration("by", by.Round(time.Second)), zap.Error(err))
}

// resume has the waits go on from where they were when a host last looked.
func (r *rotation) resume() {
	rested, err := r.rotator.Resume()
	if rested == 0 && err == nil {
		return
	}
	r.log.Error("key rotations under way were not looked at for long, or the clock of this host or of the one that led before is wrong: "+
		"that time does not count, and the waits go on from where they were; let NTP keep the time",
		zap.Duration("by", rested.Round(time.Second)), zap.Error(err))
}

// begin starts the rotations that are due.
func (r *rotation) begin() error {
	due, err := r.rotator.Due(r.every)
	for _, domain := range due[:min(len(due), maxStarts)] {
		if startErr := r.rotator.Start(domain); startErr != nil && err == nil {
			err = startErr
		}
	}
	return err
}

// advance makes the steps of one domain. It returns only an error that is not in the
// state of the rotation, and so was not reported yet.
func (r *rotation) advance(ctx context.Context, domain string) error {
	if r.now().Before(r.next[domain]) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, rotateTimeout)
	defer cancel()
	wait, err := r.rotator.Advance(ctx, domain)
	r.next[domain] = r.now().Add(wait)
	if err == nil || errors.Is(ctx.Err(), context.Canceled) || errors.Is(err, rotate.ErrBusy) {
		return nil
	}
	if state, _ := r.rotator.State(domain); state != nil && state.Problem == err.Error() {
		return nil
	}
	return err
}

// look counts the rotations, and forgets domains that have none any more.
func (r *rotation) look(domains []string) {
	seen := &rotationsSeen{leads: true, phases: make(map[rotate.Phase]int), problems: r.problems()}
	next := make(map[string]time.Time, len(domains))
	for _, domain := range domains {
		next[domain] = r.next[domain]
		state, err := r.rotator.State(domain)
		if err != nil || state == nil {
			continue
		}
		seen.phases[state.Phase]++
		if state.Problem != "" {
			seen.problems++
		}
	}
	r.next = next
	r.seen.Store(seen)
}

// failed reports why a round failed, once for each reason.
func (r *rotation) failed(what string, err error) {
	text := ""
	if err != nil {
		text = what + ": " + err.Error()
	}
	if text == r.problem {
		return
	}
	r.problem = text
	if err != nil {
		r.report(rotate.Event{Step: rotate.Failed, Detail: what, Err: err})
	}
}

// problems returns 1 if the latest round failed, else 0.
func (r *rotation) problems() int {
	if r.problem == "" {
		return 0
	}
	return 1
}

// rotateReasons are the reasons of the records of steps.
var rotateReasons = map[rotate.Step]record.Reason{
	rotate.Started:   record.RotateStarted,
	rotate.Handed:    record.RotateHanded,
	rotate.ByHand:    record.RotateByHand,
	rotate.Seen:      record.RotateSeen,
	rotate.Signs:     record.RotateSigns,
	rotate.Retired:   record.RotateRetired,
	rotate.RevokedIt: record.RotateRevoked,
	rotate.Finished:  record.RotateFinished,
	rotate.Lost:      record.RotateLost,
	rotate.UndoneIt:  record.RotateUndone,
	rotate.Withdrawn: record.RotateWithdrawn,
	rotate.Failed:    record.RotateFailed,
}

// rotateCheck is the check of these records.
const rotateCheck = "dkim_rotate"

// report writes the record of a step.
func (r *rotation) report(e rotate.Event) {
	verdict := "pass"
	if e.Err != nil {
		verdict = "error"
	}
	detail := e.Detail
	for _, c := range e.Publish {
		detail += "\n" + c.Zone()
	}
	reason := rotateReasons[e.Step]
	r.records.Record(&record.Record{
		Daemon: daemonName, Check: rotateCheck, Verdict: verdict, Reason: reason, Mode: record.ModeEnforce, From: e.Domain, Err: e.Err,
		Steps: []record.Step{{Check: rotateCheck, Verdict: verdict, Reason: reason, Detail: strings.TrimSpace(detail), Err: e.Err}},
	}, time.Now())
}
