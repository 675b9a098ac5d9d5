package rotate

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/dkim"
)

// job is the work on one domain, while its folder is locked.
type job struct {
	*Settings
	folder *domainFolder
	state  *State
	none   *View // see wildcard; nil until this step has asked
}

// phases has a function for each phase. It returns the next phase, or the same phase with
// the time until the next attempt.
var phases = map[Phase]func(*job, context.Context) (Phase, time.Duration, error){
	Make:     (*job).makeKeys,
	Publish:  (*job).publish,
	Sign:     (*job).sign,
	Retire:   (*job).retire,
	Keep:     (*job).keepOld,
	Revoke:   (*job).revoke,
	Revoked:  (*job).awaitRemoval,
	Remove:   (*job).removeOld,
	Withdraw: (*job).withdraw,
}

// advance makes the steps that can be made now.
func (j *job) advance(ctx context.Context) (time.Duration, error) {
	if !j.state.active() {
		return 0, nil
	}
	if err := j.folder.look(j.Now()); err != nil {
		return look, err
	}
	for range maxPhases {
		if !j.state.active() {
			return 0, nil
		}
		phase := j.state.Phase
		j.none = nil
		next, wait, err := phases[phase](j, ctx)
		if err != nil && errors.Is(ctx.Err(), context.Canceled) {
			return 0, err // interrupted: the error says nothing about the step
		}
		if err != nil {
			return look, j.failed(err)
		}
		if next == phase {
			return wait, j.settled()
		}
		j.state.to(next, j.Now())
		if err := j.folder.save(j.state); err != nil {
			return look, err
		}
	}
	return look, nil // the DNS gives a different answer each time
}

// maxPhases bounds what one advance does; a rotation has fewer.
const maxPhases = 20

// failed records why a step failed, and reports it if the reason is new.
func (j *job) failed(err error) error {
	text := err.Error()
	if j.state.Problem == text {
		return err
	}
	j.state.Problem = text
	j.Report(Event{Domain: j.state.Domain, Step: Failed, Detail: string(j.state.Phase), Err: err})
	return errors.Join(err, j.folder.save(j.state))
}

// settled removes a problem that is over from the state.
func (j *job) settled() error {
	if j.state.Problem == "" {
		return nil
	}
	j.state.Problem = ""
	return j.folder.save(j.state)
}

// step adds a step to the history, saves the state, and reports the step with the
// changes that a person has to make.
func (j *job) step(step Step, detail string, byHand ...Change) error {
	j.state.note(j.Now(), step, detail)
	if err := j.folder.save(j.state); err != nil {
		return err
	}
	j.Report(Event{Domain: j.state.Domain, Step: step, Detail: detail, Publish: byHand})
	return nil
}

// start makes the state of a new rotation.
func (j *job) start() error {
	keys, _, err := j.folder.signing()
	if err != nil {
		return err
	}
	if len(keys) > maxOutgoing {
		return fmt.Errorf("%s has %d keys; a rotation replaces at most %d, remove those that are not needed", j.folder.domain, len(keys), maxOutgoing)
	}
	now := j.Now()
	next := &State{Version: stateVersion, Domain: j.folder.domain, Phase: Make, Started: now, Since: now, Outgoing: keys}
	if j.state != nil {
		next.History, next.Switched = j.state.History, j.state.Switched
	}
	if next.Incoming, err = j.newSelectors(keys, now, ""); err != nil {
		return err
	}
	j.state = next
	return j.step(Started, "from "+names(next.Outgoing)+" to "+names(next.Incoming))
}

// newSelectors returns a name for one new key of each kind of key that signs. after is
// the selector of a name that was tried, "" for none.
func (j *job) newSelectors(old []KeyRef, now time.Time, after string) ([]KeyRef, error) {
	day := "postern-" + now.UTC().Format("20060102")
	for letter := range 26 {
		base := day
		if letter > 0 {
			base += string(rune('a' + letter))
		}
		refs := refsFor(base, old)
		if after != "" {
			if refs[0].Selector == after {
				after = ""
			}
			continue
		}
		if !slices.ContainsFunc(refs, func(k KeyRef) bool { return !j.folder.free(k.Selector) }) && !j.wasUsed(refs) {
			return refs, nil
		}
	}
	return nil, fmt.Errorf("%s has had 26 rotations today; wait until tomorrow", j.folder.domain)
}

// wasUsed reports whether the last rotation had one of these selectors: its record
// may still be cached.
func (j *job) wasUsed(refs []KeyRef) bool {
	if j.state == nil {
		return false
	}
	return slices.ContainsFunc(refs, func(k KeyRef) bool {
		same := func(other KeyRef) bool { return other.Selector == k.Selector }
		return slices.ContainsFunc(j.state.Incoming, same) || slices.ContainsFunc(j.state.Outgoing, same)
	})
}

// passOverTaken gives the new keys other selectors while the DNS has records at theirs.
// Those are of a host that rotates the same domain on its own, or of keys that were
// replaced by a backup: to overwrite them would take the record of a key that may sign.
func (j *job) passOverTaken(ctx context.Context) error {
	refs := j.state.Incoming
	for {
		taken, err := j.taken(ctx, refs)
		if err != nil && j.Publisher != nil {
			return err
		}
		if !taken {
			break // or unknown: a person sees what is there before publishing
		}
		if refs, err = j.newSelectors(j.state.Outgoing, j.state.Started, refs[0].Selector); err != nil {
			return err
		}
	}
	if refs[0].Selector == j.state.Incoming[0].Selector {
		return nil
	}
	detail := fmt.Sprintf("from %s to %s; %s is in use in the DNS", names(j.state.Outgoing), names(refs), names(j.state.Incoming))
	j.state.Incoming = refs
	return j.step(Started, detail)
}

// taken reports whether some server has records at the names of keys.
func (j *job) taken(ctx context.Context, keys []KeyRef) (bool, error) {
	wildcard, err := j.wildcard(ctx)
	if err != nil {
		return false, err
	}
	for _, key := range keys {
		view, err := j.lookPast(ctx, key)
		if err != nil {
			return false, err
		}
		if view.away != wildcard.away {
			return true, nil
		}
		for _, s := range view.Servers {
			if len(s.TXT) > 0 && !sameRecords(s.TXT, wildcard.at(s.Server)) {
				return true, nil
			}
		}
	}
	return false, nil
}

// noSelector is a selector that no key has.
const noSelector = "postern-no-key"

// wildcard returns what servers show at the name of a key that does not exist: nothing, or
// the records of a wildcard. They also have this at a name that is published next, or after its
// removal, and caches may hold it. The servers are asked once for each step.
func (j *job) wildcard(ctx context.Context) (View, error) {
	if j.none == nil {
		view, err := j.lookPast(ctx, KeyRef{Selector: noSelector})
		if err != nil {
			return view, err
		}
		j.none = &view
	}
	return *j.none, nil
}

// lookPast looks at a name that has no record of its own yet. A wildcard CNAME record may
// lead to servers that do not answer, which says nothing about the name.
func (j *job) lookPast(ctx context.Context, key KeyRef) (View, error) {
	view, err := j.DNS.Look(ctx, j.recordName(key))
	if away := (*aliasError)(nil); errors.As(err, &away) {
		return View{Cached: view.Cached, away: away.target}, nil
	}
	return view, err
}

func sameRecords(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func refsFor(base string, old []KeyRef) (refs []KeyRef) {
	if slices.ContainsFunc(old, func(k KeyRef) bool { return !k.isEd25519() }) {
		refs = append(refs, KeyRef{Selector: base, Algorithm: "rsa-sha256"})
	}
	if slices.ContainsFunc(old, KeyRef.isEd25519) {
		refs = append(refs, KeyRef{Selector: base + "-ed25519", Algorithm: "ed25519-sha256"})
	}
	return refs
}

func (k KeyRef) isEd25519() bool { return strings.HasPrefix(k.Algorithm, "ed25519") }

// revokedRecord returns the record without the key (RFC 6376 section 3.6.1).
func (k KeyRef) revokedRecord() string {
	before, _, _ := strings.Cut(k.Record, "p=")
	return before + "p="
}

func names(keys []KeyRef) string {
	var all []string
	for _, key := range keys {
		all = append(all, key.Selector)
	}
	return strings.Join(all, ", ")
}

// recordName returns the name of the record of a key.
func (j *job) recordName(key KeyRef) string {
	return strings.ToLower(key.Selector) + "._domainkey." + j.state.Domain
}

// changes returns the changes of an action for the records of keys.
func (j *job) changes(action Action, keys []KeyRef) (all []Change) {
	for _, key := range keys {
		c := Change{Action: action, Domain: j.state.Domain, Name: j.recordName(key), TTL: RecordTTL}
		switch action {
		case DoPublish:
			c.Value = key.Record
		case DoRevoke:
			c.Value = key.revokedRecord()
		}
		all = append(all, c)
	}
	return all
}

// change changes the records of keys, and returns what the servers show. The publisher
// gets the change again only while the servers do not show it.
func (j *job) change(ctx context.Context, action Action, keys []KeyRef, made func(shown) bool) (shown, error) {
	if j.state.Handed.IsZero() {
		if err := j.hand(ctx, action, keys); err != nil {
			return shown{}, err
		}
	}
	sees, err := j.look(ctx, keys)
	if err == nil && !made(sees) {
		err = j.hand(ctx, action, keys)
	}
	return sees, err
}

// hand passes the changes to the publisher, or shows them to a person, with a pause
// between repetitions.
func (j *job) hand(ctx context.Context, action Action, keys []KeyRef) error {
	now, every := j.Now(), again
	if j.Publisher == nil {
		every = againByHand
	}
	if since := now.Sub(j.state.Handed); !j.state.Handed.IsZero() && since >= 0 && since < every {
		return nil
	}
	changes := j.changes(action, keys)
	detail := string(action) + " " + names(keys)
	if j.Publisher == nil {
		j.state.Handed = now
		return j.step(ByHand, detail, changes...)
	}
	for _, c := range changes {
		if err := j.before(string(action) + " " + c.Name); err != nil {
			return err
		}
		if err := j.Publisher.Change(ctx, c); err != nil {
			return fmt.Errorf("%s %s: %w", action, c.Name, err)
		}
	}
	j.state.Handed = now
	return j.step(Handed, detail)
}

// stuck notes what is missing where. It returns an error if the servers have not shown an
// action of the publisher for too long: it may report success and change nothing, or a
// server may not get the zone. A person is reminded instead.
func (j *job) stuck(action Action, keys []KeyRef, where string) error {
	if j.state.Missing != where {
		j.state.Missing = where
		if err := j.folder.save(j.state); err != nil {
			return err
		}
	}
	if j.Publisher == nil || j.Now().Sub(j.state.Since) < stuckAfter {
		return nil
	}
	return fmt.Errorf("%s %s: handed over, and not every name server shows it since %s (%s): look at what the publisher does, and at the transfer of the zone",
		action, names(keys), j.state.Since.UTC().Format(time.DateOnly), where)
}

// shown is what all servers together show for keys.
type shown struct {
	all    bool // every server shows the record of every key
	none   bool // no server shows any of the keys
	absent bool // no server has a key record at any of the names, but that of a wildcard
	// foreign: some server has another key at one of the names, which is not that of a wildcard.
	foreign bool
	cached  time.Duration // the longest time for which an answer may be cached

	// As text, for people: what is missing at some server, which key some server shows, and
	// which record some server has.
	lacks, shows, has string
}

// look asks all servers for the records of keys.
func (j *job) look(ctx context.Context, keys []KeyRef) (shown, error) {
	wildcard, err := j.wildcard(ctx)
	if err != nil {
		return shown{}, err
	}
	sum := shown{all: true, none: true, absent: true, cached: wildcard.Cached}
	for _, key := range keys {
		public, err := dkim.PublicKeyOf(key.Record)
		if err != nil {
			return shown{}, fmt.Errorf("the record of %s in the state: %w", key.Selector, err)
		}
		name := j.recordName(key)
		view, err := j.DNS.Look(ctx, name)
		if away := (*aliasError)(nil); errors.As(err, &away) && away.target == wildcard.away {
			sum.all = false
			sum.lacks = fmt.Sprintf("%s is not published, a wildcard CNAME record leads to %s", name, away.target)
			continue
		}
		if err != nil {
			return shown{}, err
		}
		if len(view.Servers) == 0 {
			return shown{}, fmt.Errorf("%s: no name server was asked", name)
		}
		sum.addKey(view, wildcard, name, public)
	}
	return sum, nil
}

func (s *shown) addKey(view, wildcard View, name string, public crypto.PublicKey) {
	s.cached = max(s.cached, view.Cached)
	for _, server := range view.Servers {
		published := dkim.ComparePublished(server.TXT, public)
		if published != dkim.PublishedSame {
			s.all = false
			s.lacks = fmt.Sprintf("%s is %s at %s", name, published, server.Server)
		}
		if published == dkim.PublishedOther && !sameRecords(server.TXT, wildcard.at(server.Server)) {
			s.foreign = s.foreign || slices.ContainsFunc(server.TXT, func(record string) bool { return isAnother(record, public) })
		}
		if slices.ContainsFunc(server.TXT, func(record string) bool { return dkim.Inspect(record, public).Same }) {
			s.none = false
			s.shows = fmt.Sprintf("%s is not revoked at %s", name, server.Server)
		}
		if published != dkim.Unpublished && !sameRecords(server.TXT, wildcard.at(server.Server)) {
			s.absent = false
			s.has = fmt.Sprintf("%s is not removed at %s", name, server.Server)
		}
	}
}

// isAnother reports whether a record is that of another key.
func isAnother(record string, public crypto.PublicKey) bool {
	found := dkim.Inspect(record, public)
	return found.Err == nil && !found.Revoked && !found.Same
}
