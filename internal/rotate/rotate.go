// Package rotate replaces the DKIM keys of a domain, from making new keys to removing
// the old records. A rotation has a state on disk ([State]) in the folder of the
// domain's keys. Its steps can be repeated: if a process ends at any point of a step,
// the next process continues.
//
// Invariants:
//
//   - A new key signs only after every authoritative name server has shown its
//     record for as long as an older answer may be cached.
//   - The old keys stop signing only while every server shows the new records.
//   - A record that may be needed by mail on its way is neither revoked nor removed
//     (see [Settings.keep]). Nor is any record while a new record is missing.
//   - A server that does not answer stops a rotation, and never advances it.
package rotate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Times of a rotation.
const (
	// Overlap is how long both old and new keys sign, so that every daemon has read the
	// new keys before the old ones stop.
	Overlap = time.Hour
	// MinKeep is the shortest time for which an old record is kept.
	MinKeep = 14 * 24 * time.Hour
	// RevokedFor is how long a revoked record is published before it is removed.
	RevokedFor = 14 * 24 * time.Hour
	// RecordTTL is the TTL of records that are published.
	RecordTTL = time.Hour

	// look is how often servers are asked while a rotation waits for a record. lookKept
	// is how often they are asked while an old record is kept.
	look     = time.Minute
	lookKept = time.Hour
	// restMost is the longest time without a look that counts.
	restMost = 2 * lookKept
	// byHandWait is the wait after which a person who rotates by hand comes back at the
	// latest.
	byHandWait = 30 * 24 * time.Hour
	// again is the time after which a change that no server shows is passed to the
	// publisher again. againByHand is how often a person is reminded.
	again       = time.Hour
	againByHand = 24 * time.Hour
	// stuckAfter is how long servers may take to show what the publisher has changed. Then
	// it is a problem that someone has to look at.
	stuckAfter = 48 * time.Hour

	// maxOutgoing leaves room for as many new keys in a folder (sign.MaxKeysPerDomain).
	maxOutgoing = 4
)

// Action is the kind of a change in the DNS.
type Action string

// The actions. The record of a selector is replaced as a whole.
const (
	DoPublish Action = "publish"
	DoRevoke  Action = "revoke" // the record has an empty p=
	DoRemove  Action = "remove"
)

// Change is one change of the DNS. It has the same result if it is made twice.
type Change struct {
	Action Action
	Domain string
	Name   string // of the record, without the last dot
	Value  string // of the TXT record; "" to remove it
	TTL    time.Duration
}

// Publisher changes the DNS. After an error, it is unknown whether the change was made.
type Publisher interface {
	Change(ctx context.Context, c Change) error
}

// DNS looks at what the authoritative servers show.
type DNS interface {
	// Look asks every authoritative server for the TXT records of a name. An error means
	// that some server did not answer.
	Look(ctx context.Context, name string) (View, error)
}

// View is what the authoritative servers show of one name.
type View struct {
	Servers []ServerView // at least one
	// Cached is how long a cache may hold an answer that differs: the TTL of
	// records, or that of the answer that there are none.
	Cached time.Duration
	// away is where a CNAME record leads whose servers do not answer, "" if there is none.
	away string
}

// at returns the records that a server has.
func (v View) at(server string) []string {
	for _, s := range v.Servers {
		if s.Server == server {
			return s.TXT
		}
	}
	return nil
}

// ServerView is the answer of one server.
type ServerView struct {
	Server string
	TXT    []string // empty if there is no such record
}

// Settings are the settings of rotations.
type Settings struct {
	Dir       string    // the folder of all keys
	Publisher Publisher // nil if a person publishes what [Event.Publish] shows
	DNS       DNS
	Expire    time.Duration // of signatures (x=)
	// QueueLifetime is Postfix's maximal_queue_lifetime.
	QueueLifetime func(context.Context) time.Duration
	Now           func() time.Time
	// Lead returns why this host must not make steps, or nil if it may. It is asked
	// before each [Rotator.Advance]; nil if no other host could make them.
	Lead func(context.Context) error
	// Report is called for each step when it is on disk. It must not wait.
	Report func(Event)

	// For tests: before is called before each effect. With noSync, files need not
	// survive a crash of the machine.
	before func(what string) error
	noSync bool
}

// Event is a step of a rotation.
type Event struct {
	Domain string
	Step   Step
	Detail string
	Err    error
	// Publish has the changes that a person has to make.
	Publish []Change
}

// Step names an event.
type Step string

// The steps.
const (
	Started   Step = "started"
	Handed    Step = "handed"  // changes of the DNS were made by the publisher
	ByHand    Step = "by_hand" // changes of the DNS wait for a person
	Seen      Step = "seen"    // every server shows the new records
	Signs     Step = "signs"
	Retired   Step = "retired"
	RevokedIt Step = "revoked"
	Finished  Step = "finished"
	Lost      Step = "lost" // records of signing keys are missing in the DNS: the old keys sign again
	UndoneIt  Step = "undone"
	Withdrawn Step = "withdrawn"
	Failed    Step = "failed" // a step could not be made
)

// Rotator makes the steps of rotations.
type Rotator struct{ s Settings }

// New returns a rotator.
func New(s Settings) *Rotator {
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.before == nil {
		s.before = func(string) error { return nil }
	}
	if s.Lead == nil {
		s.Lead = func(context.Context) error { return nil }
	}
	if s.Report == nil {
		s.Report = func(Event) {}
	}
	return &Rotator{s}
}

// keep returns how long an old record is kept after its key has stopped signing: the
// time for which a signature is valid, plus the time that mail can wait in the queue of
// this Postfix.
func (s *Settings) keep(ctx context.Context) time.Duration {
	return max(MinKeep, s.Expire+s.QueueLifetime(ctx))
}

// open opens the folder of a domain and reads its state.
func (r *Rotator) open(domain string) (*job, error) {
	name, err := mailaddr.ParseDomain(domain)
	if err != nil {
		return nil, fmt.Errorf("domain %q: %w", domain, err)
	}
	folder, err := openFolder(&r.s, name)
	if err != nil {
		return nil, err
	}
	state, err := folder.load()
	if err != nil {
		return nil, errors.Join(err, folder.close())
	}
	return &job{Settings: &r.s, folder: folder, state: state}, nil
}

// work locks the folder of a domain while do works on it.
func (r *Rotator) work(domain string, do func(*job) error) (err error) {
	j, err := r.open(domain)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.folder.close()) }()
	return do(j)
}

// Start begins a rotation, unless one is running, which then continues.
func (r *Rotator) Start(domain string) error {
	return r.work(domain, func(j *job) error {
		if j.state.active() {
			return nil
		}
		return j.start()
	})
}

// Advance makes the steps of a domain's rotation that can be made now. It returns the
// time until there may be more to do, or 0 if the rotation is over.
func (r *Rotator) Advance(ctx context.Context, domain string) (next time.Duration, err error) {
	if err := r.s.Lead(ctx); err != nil {
		return look, err
	}
	next = look
	err = r.work(domain, func(j *job) (err error) {
		next, err = j.advance(ctx)
		return err
	})
	return next, err
}

// Undo reverts a rotation: the old keys sign again. This is possible until they are
// revoked.
func (r *Rotator) Undo(domain string) error { return r.work(domain, (*job).undo) }

// ClockSet moves the times of all rotations under way along with a clock that was set by
// some time, negative for back. So no wait becomes shorter or longer.
func (r *Rotator) ClockSet(by time.Duration) error {
	return r.move(func(time.Time) time.Duration { return by })
}

// Resume is called by a host that begins to make steps. No wait goes on while no host
// looked, for longer than two hours: perhaps the clock of this host is wrong, as after a
// boot, and a record would be revoked that mail on its way needs. Resume returns the longest
// time that did not count, negative if the clock has gone back.
func (r *Rotator) Resume() (rested time.Duration, err error) {
	err = r.move(func(looked time.Time) time.Duration {
		gap := r.rest(looked, restMost)
		if gap.Abs() > rested.Abs() {
			rested = gap
		}
		return gap
	})
	return rested, err
}

// ResumeByHand is Resume for one domain and a command, which a timer or a person starts: much
// more time without a look counts, up to twice the longest wait. After even more the clock of
// this host may be wrong, and to wait once more does no harm. A clock cannot go back, so that
// time before the latest look never counts.
func (r *Rotator) ResumeByHand(ctx context.Context, domain string) (rested time.Duration, err error) {
	most := 2 * max(r.KeepTime(ctx), byHandWait)
	err = r.moveOne(domain, func(looked time.Time) time.Duration {
		rested = r.rest(looked, most)
		return rested
	})
	return rested, err
}

// rest returns the time since a look that does not count: none, or if it is over most, all.
// It is negative if the look is later than now, by more than restMost.
func (r *Rotator) rest(looked time.Time, most time.Duration) time.Duration {
	gap := r.s.Now().Sub(looked)
	if looked.IsZero() || gap <= most && gap >= -restMost {
		return 0
	}
	return gap
}

// move moves the times of each rotation under way. by gets when a host last looked at it,
// zero if that is not known.
func (r *Rotator) move(by func(looked time.Time) time.Duration) error {
	underWay, err := r.UnderWay()
	for _, domain := range underWay {
		err = errors.Join(err, r.moveOne(domain, by))
	}
	return err
}

func (r *Rotator) moveOne(domain string, by func(looked time.Time) time.Duration) error {
	return r.work(domain, func(j *job) error {
		looked, err := j.folder.looked()
		if err != nil || !j.state.active() {
			return err
		}
		step := by(looked)
		if step == 0 {
			return nil
		}
		j.state.move(step)
		return errors.Join(j.folder.save(j.state), j.folder.look(j.Now()))
	})
}

// State returns the state of a domain's rotation, or nil if it never had one. It needs
// no lock.
func (r *Rotator) State(domain string) (*State, error) {
	name, err := mailaddr.ParseDomain(domain)
	if err != nil {
		return nil, fmt.Errorf("domain %q: %w", domain, err)
	}
	return readState(r.s.Dir, name)
}

// UnderWay returns the domains with a rotation that is not over. If some states cannot be
// read, it returns the other domains and an error.
func (r *Rotator) UnderWay() ([]string, error) {
	all, err := domains(r.s.Dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	var found []string
	for _, domain := range all {
		state, err := readState(r.s.Dir, domain)
		errs = append(errs, err)
		if state.active() {
			found = append(found, domain)
		}
	}
	return found, errors.Join(errs...)
}

// Due returns the domains whose keys have signed for longer than every, and which have
// no running rotation.
func (r *Rotator) Due(every time.Duration) ([]string, error) {
	all, err := domains(r.s.Dir)
	if err != nil {
		return nil, err
	}
	var errs []error
	var due []string
	for _, domain := range all {
		since, err := signingSince(r.s.Dir, domain)
		errs = append(errs, err)
		if !since.IsZero() && r.s.Now().Sub(since) >= every {
			due = append(due, domain)
		}
	}
	return due, errors.Join(errs...)
}

// KeepTime returns how long an old record is kept.
func (r *Rotator) KeepTime(ctx context.Context) time.Duration { return r.s.keep(ctx) }

// Zone returns a change as a line of a zone file.
func (c Change) Zone() string {
	if c.Value == "" {
		return c.Name + ". IN TXT"
	}
	var parts []string
	for _, part := range split(c.Value) {
		parts = append(parts, `"`+part+`"`)
	}
	return fmt.Sprintf("%s. %d IN TXT %s", c.Name, int(c.TTL/time.Second), strings.Join(parts, " "))
}

// split cuts a text into character-strings (RFC 1035 section 3.3).
func split(text string) (parts []string) {
	for len(text) > 255 {
		parts, text = append(parts, text[:255]), text[255:]
	}
	return append(parts, text)
}
