package rotate

import (
	"context"
	"fmt"
	"time"
)

// makeKeys makes the new keys. RSA keys are as long as the longest old key, and have at
// least 2048 bits.
func (j *job) makeKeys(ctx context.Context) (Phase, time.Duration, error) {
	_, bits, err := j.folder.signing()
	if err != nil {
		return "", 0, err
	}
	// Those of an attempt that was cut short, or that gave way to another host.
	if err := j.folder.deleteHidden(j.state.Incoming); err != nil {
		return "", 0, err
	}
	if err := j.passOverTaken(ctx); err != nil {
		return "", 0, err
	}
	made, err := j.folder.generate(j.state.Incoming, max(bits, minBits))
	if err != nil {
		return "", 0, err
	}
	j.state.Incoming = made
	return Publish, 0, nil
}

// minBits is the length of RSA keys that large receivers require.
const minBits = 2048

// publish waits until every server has shown the records for long enough. If a server
// shows something else, the time starts again. If a server does not answer, the time
// continues, but the next phase needs its answer.
func (j *job) publish(ctx context.Context) (Phase, time.Duration, error) {
	sees, err := j.change(ctx, DoPublish, j.state.Incoming, func(s shown) bool { return s.all || j.givesWay(s) })
	if err != nil {
		return "", 0, err
	}
	if j.givesWay(sees) {
		return Make, 0, nil
	}
	now := j.Now()
	if !sees.all {
		if !j.state.Seen.IsZero() {
			j.state.Seen, j.state.Missing = time.Time{}, sees.lacks
			return Publish, look, j.folder.save(j.state)
		}
		return Publish, look, j.stuck(DoPublish, j.state.Incoming, sees.lacks)
	}
	if j.state.Seen.IsZero() || now.Before(j.state.Seen) {
		j.state.Seen, j.state.Missing = now, ""
		if err := j.step(Seen, fmt.Sprintf("%s; signing begins in %s", names(j.state.Incoming), sees.cached)); err != nil {
			return "", 0, err
		}
	}
	if left := sees.cached - now.Sub(j.state.Seen); left > 0 {
		return Publish, min(left, look), nil
	}
	return Sign, 0, nil
}

// givesWay reports whether the new keys need other names: a host that rotates the same
// domain on its own has published its keys at these in the same moment, so that neither
// saw them taken. The one whose record is gone goes back. Its keys have not signed, and the
// other's record stays.
func (j *job) givesWay(s shown) bool { return s.foreign && !j.state.Signed && j.Publisher != nil }

// sign moves the new keys beside the old ones, if their records are still published.
func (j *job) sign(ctx context.Context) (Phase, time.Duration, error) {
	sees, err := j.look(ctx, j.state.Incoming)
	if err != nil {
		return "", 0, err
	}
	if !sees.all {
		return j.lost(sees)
	}
	if !j.state.Signed {
		j.state.Signed = true
		if err := j.folder.save(j.state); err != nil {
			return "", 0, err
		}
	}
	if err := j.folder.moveIn(j.state.Incoming); err != nil {
		return "", 0, err
	}
	return Retire, 0, j.step(Signs, names(j.state.Incoming)+" beside "+names(j.state.Outgoing))
}

// retire moves the old keys away, if the new records are still published.
func (j *job) retire(ctx context.Context) (Phase, time.Duration, error) {
	if left := Overlap - j.Now().Sub(j.state.Since); left > 0 {
		return Retire, min(left, lookKept), nil
	}
	sees, err := j.look(ctx, j.state.Incoming)
	if err != nil {
		return "", 0, err
	}
	if !sees.all {
		return j.lost(sees)
	}
	if err := j.folder.moveOut(j.state.Outgoing); err != nil {
		return "", 0, err
	}
	j.state.Switched = j.Now()
	return Keep, 0, j.step(Retired, fmt.Sprintf("%s; the records stay for %s", names(j.state.Outgoing), j.keep(ctx)))
}

// lost goes back to the publish phase, if some server has not the records of the keys
// that sign or will sign. The old keys sign too until every server has them.
func (j *job) lost(sees shown) (Phase, time.Duration, error) {
	if err := j.folder.moveIn(j.state.Outgoing); err != nil {
		return "", 0, err
	}
	if err := j.step(Lost, sees.lacks+"; signing with "+names(j.state.Outgoing)); err != nil {
		return "", 0, err
	}
	return Publish, 0, nil
}

// keepOld keeps the old records while mail may need them.
func (j *job) keepOld(ctx context.Context) (Phase, time.Duration, error) {
	sees, err := j.look(ctx, j.state.Incoming)
	if err != nil {
		return "", 0, err
	}
	if !sees.all {
		return j.lost(sees)
	}
	if left := j.keep(ctx) - j.Now().Sub(j.state.Since); left > 0 {
		return Keep, min(left, lookKept), nil
	}
	return Revoke, 0, nil
}

// revoke revokes the old keys, and deletes them when every server shows the revocation.
func (j *job) revoke(ctx context.Context) (Phase, time.Duration, error) {
	if err := j.folder.hideStray(j.state.Outgoing); err != nil {
		return "", 0, err
	}
	if next, wait, err := j.mayRevoke(ctx); err != nil || next != Revoke {
		return next, wait, err
	}
	sees, err := j.change(ctx, DoRevoke, j.state.Outgoing, func(s shown) bool { return s.none })
	if err != nil {
		return "", 0, err
	}
	if !sees.none {
		return Revoke, look, j.stuck(DoRevoke, j.state.Outgoing, sees.shows)
	}
	if err := j.folder.deleteHidden(j.state.Outgoing); err != nil {
		return "", 0, err
	}
	return Revoked, 0, j.step(RevokedIt, names(j.state.Outgoing))
}

// mayRevoke returns the revoke phase if the old records may be revoked. The publisher may
// have refused for days, or a person has not done it yet. If new records were lost in
// that time, the old keys sign again. When part of the old records is revoked already,
// they cannot.
func (j *job) mayRevoke(ctx context.Context) (Phase, time.Duration, error) {
	old, err := j.look(ctx, j.state.Outgoing)
	if err != nil || old.none {
		return Revoke, 0, err
	}
	fresh, err := j.look(ctx, j.state.Incoming)
	switch {
	case err != nil:
		return "", 0, err
	case fresh.all:
		return Revoke, 0, nil
	case old.all:
		return j.lost(fresh)
	}
	return "", 0, fmt.Errorf("%s, and part of the old records is revoked: publish the new records again", fresh.lacks)
}

func (j *job) awaitRemoval(context.Context) (Phase, time.Duration, error) {
	if left := RevokedFor - j.Now().Sub(j.state.Since); left > 0 {
		return Revoked, min(left, lookKept), nil
	}
	return Remove, 0, nil
}

// removeOld removes the revoked records.
func (j *job) removeOld(ctx context.Context) (Phase, time.Duration, error) {
	sees, err := j.change(ctx, DoRemove, j.state.Outgoing, func(s shown) bool { return s.absent })
	if err != nil {
		return "", 0, err
	}
	if !sees.absent {
		return Remove, look, j.stuck(DoRemove, j.state.Outgoing, sees.has)
	}
	return Done, 0, j.step(Finished, "signing with "+names(j.state.Incoming))
}

// undo makes the old keys sign again. New keys that have signed are then treated like old
// keys. Others are withdrawn.
func (j *job) undo() error {
	s := j.state
	switch {
	case !s.active():
		return fmt.Errorf("%s has no rotation under way; there is nothing to undo", j.folder.domain)
	case s.Phase == Revoke || s.Phase == Revoked || s.Phase == Remove:
		return fmt.Errorf("the old keys of %s are being revoked; start a new rotation instead: wait until this one is over", s.Domain)
	case s.Phase == Withdraw:
		return nil
	}
	if !s.Signed {
		s.to(Withdraw, j.Now())
		return j.step(UndoneIt, names(s.Incoming)+" will not sign")
	}
	// As sign does, with keys that may be in their place already.
	s.Incoming, s.Outgoing, s.Undone = s.Outgoing, s.Incoming, !s.Undone
	s.to(Sign, j.Now())
	return j.step(UndoneIt, names(s.Incoming)+" instead of "+names(s.Outgoing))
}

// withdraw removes the records of keys that have never signed, and the keys. Records that
// another host has published at their names stay, see givesWay.
func (j *job) withdraw(ctx context.Context) (Phase, time.Duration, error) {
	var published []KeyRef
	for _, key := range j.state.Incoming {
		if key.Record == "" {
			continue // it was not made
		}
		sees, err := j.look(ctx, []KeyRef{key})
		if err != nil {
			return "", 0, err
		}
		if !sees.foreign {
			published = append(published, key)
		}
	}
	if len(published) > 0 {
		if err := j.hand(ctx, DoRemove, published); err != nil {
			return "", 0, err
		}
	}
	if err := j.folder.deleteHidden(j.state.Incoming); err != nil {
		return "", 0, err
	}
	j.state.Switched = j.Now() // so that the next rotation does not start at once
	return Done, 0, j.step(Withdrawn, names(j.state.Incoming))
}
