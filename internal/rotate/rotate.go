// Package rotate replaces the DKIM keys of a domain, from new keys to the removal
// of the old records. A rotation is a state on disk ([State]) in the folder of the
// domain's keys, and steps that can be repeated: a process that ends at any point
// of a step leaves something from which the next one goes on.
//
// Invariants:
//
//   - A new key signs only after every authoritative name server has shown its
//     record for as long as an older answer may be cached.
//   - The old keys stop signing only while every server shows the new records.
//   - A record that may be needed by mail under way is neither revoked nor removed
//     (see [Settings.keep]), and never while the new records are not to be seen.
//   - A server that does not answer stops a rotation; it never moves it on.
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
	// Overlap is how long old and new keys both sign, so that every daemon has
	// read the new ones before the old ones go.
	Overlap = time.Hour
	// MinKeep is the shortest time for which an old record is kept.
	MinKeep = 14 * 24 * time.Hour
	// RevokedFor is how long a revoked record is there before it is removed.
	RevokedFor = 14 * 24 * time.Hour
	// RecordTTL is the TTL of records that are published.
	RecordTTL = time.Hour

	// look is how often servers are asked while a record is awaited, lookKept
	// while an old one is kept.
	look     = time.Minute
	lookKept = time.Hour
	// again is after which time a change that is not to be seen is handed over once
	// more; againByHand is how often a person is reminded.
	again       = time.Hour
	againByHand = 24 * time.Hour

	// maxOutgoing leaves room for as many new keys in a folder (sign.MaxKeysPerDomain).
	maxOutgoing = 4
)

// Action is what is to be done in the DNS.
type Action string

// The actions. The record of a selector is replaced as a whole.
const (
	DoPublish Action = "publish"
	DoRevoke  Action = "revoke" // the record has an empty p=
	DoRemove  Action = "remove"
)

// Change is one change of the DNS. Making it twice is as making it once.
type Change struct {
	Action Action
	Domain string
	Name   string // of the record, without the last dot
	Value  string // of the TXT record; "" when it is to be removed
	TTL    time.Duration
}

// Publisher changes the DNS. An error means that nothing is known.
type Publisher interface {
	Change(ctx context.Context, c Change) error
}

// DNS looks at what the authoritative servers show.
type DNS interface {
	// Look asks every authoritative server for the TXT records of a name. An error
	// means that one could not tell.
	Look(ctx context.Context, name string) (View, error)
}

// View is what the authoritative servers show of one name.
type View struct {
	Servers []ServerView // at least one
	// Cached is how long a cache may hold an answer that differs: the TTL of
	// records, or that of the answer that there are none.
	Cached time.Duration
}

// ServerView is the answer of one server.
type ServerView struct {
	Server string
	TXT    []string // none: no such record
}

// Settings are what rotations need.
type Settings struct {
	Dir       string    // the folder of all keys
	Publisher Publisher // nil: a person publishes what [Event.Publish] shows
	DNS       DNS
	Expire    time.Duration // of signatures (x=)
	// QueueLifetime is Postfix's maximal_queue_lifetime.
	QueueLifetime func(context.Context) time.Duration
	Now           func() time.Time
	// Report takes each step, once it is on disk. It must not wait.
	Report func(Event)

	// Of tests: before is called before each effect; with noSync, files need not
	// outlast a crash of the machine.
	before func(what string) error
	noSync bool
}

// Event is a step of a rotation.
type Event struct {
	Domain string
	Step   Step
	Detail string
	Err    error
	// Publish are changes that a person has to make.
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
	Lost      Step = "lost" // the records of signing keys are gone from the DNS: the old keys sign again
	UndoneIt  Step = "undone"
	Withdrawn Step = "withdrawn"
	Failed    Step = "failed" // a step could not be made
)

// Rotator makes the steps of rotations.
type Rotator struct{ s Settings }

// New makes a rotator.
func New(s Settings) *Rotator {
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.before == nil {
		s.before = func(string) error { return nil }
	}
	if s.Report == nil {
		s.Report = func(Event) {}
	}
	return &Rotator{s}
}

// keep is how long an old record is kept once its key has stopped signing: as long
// as a signature is valid, and as mail may wait in the queue of this Postfix.
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

// Start begins a rotation. One that is under way goes on instead.
func (r *Rotator) Start(domain string) (err error) {
	j, err := r.open(domain)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.folder.close()) }()
	if j.state.active() {
		return nil
	}
	return j.start()
}

// Advance makes the steps of a domain's rotation that can be made now. It returns
// after which time there may be more to do; 0 when the rotation is over.
func (r *Rotator) Advance(ctx context.Context, domain string) (next time.Duration, err error) {
	j, err := r.open(domain)
	if err != nil {
		return look, err
	}
	defer func() { err = errors.Join(err, j.folder.close()) }()
	return j.advance(ctx)
}

// Undo takes a rotation back: the old keys sign again. That is possible until they
// are revoked.
func (r *Rotator) Undo(domain string) (err error) {
	j, err := r.open(domain)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.folder.close()) }()
	return j.undo()
}

// State returns the state of a domain's rotation; nil when it never had one. It
// needs no lock.
func (r *Rotator) State(domain string) (*State, error) {
	name, err := mailaddr.ParseDomain(domain)
	if err != nil {
		return nil, fmt.Errorf("domain %q: %w", domain, err)
	}
	return readState(r.s.Dir, name)
}

// UnderWay returns the domains with a rotation that is not over. The error is
// about states that cannot be read; the domains are those that can.
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

// Due returns the domains whose keys have signed for longer than every, and which
// have no rotation under way.
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

// KeepTime is for how long an old record is kept.
func (r *Rotator) KeepTime(ctx context.Context) time.Duration { return r.s.keep(ctx) }

// Zone is a change as a line of a zone file.
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
