package replay

import (
	"context"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy/checks"
)

// correct corrects the daemon's side so that it knows what the daemon knew, and then
// makes it remember the question. Both sides learn what the record shows.
func (p *greylistPlayer) correct(ctx context.Context, q *Question, key greylist.Key) error {
	j, now := q.Greylist, q.Request.Received
	if !j.Detail.HasKey || !asksStore(j.Reason) {
		return nil
	}
	o, err := p.was.look(ctx, key, now)
	if err != nil {
		return err
	}
	if !fits(j, o) {
		if err := p.learn(ctx, q, key, o); err != nil {
			return err
		}
	}
	if len(p.seen) < 2*maxWays {
		p.seen[triplet(key)] = true
	}
	if _, flood := floods[j.Reason]; flood {
		return nil // it was not remembered
	}
	_, err = p.was.sight(ctx, key, now)
	return err
}

// asksStore reports whether a reason depends on the store.
func asksStore(r record.Reason) bool {
	switch r {
	case record.GreylistNew, record.GreylistEarly, record.GreylistWaited, record.GreylistKnown, record.GreylistAutoAllowed,
		record.GreylistAllowedByHand, record.GreylistFlood, record.GreylistFloodNetwork:
		return true
	}
	return false
}

// fits reports whether the daemon's side gives the same answer as the daemon.
func fits(j *Judged, o greylist.Outcome) bool {
	reason := checks.GreylistReason(o.Why)
	_, flood := floods[j.Reason]
	return reason == j.Reason || flood && o.Why == greylist.New
}

// learn replaces what both sides know about a key by what the record shows. said is the
// answer that the daemon's side would have given.
func (p *greylistPlayer) learn(ctx context.Context, q *Question, key greylist.Key, said greylist.Outcome) error {
	var forget []greylist.ID
	if said.Why == greylist.AutoAllowed || said.Why == greylist.AllowedByHand {
		forget = append(forget, key.DomainClient(), key.NetworkClient())
	}
	byClient := q.Greylist.Reason == record.GreylistAutoAllowed || q.Greylist.Reason == record.GreylistAllowedByHand
	if !byClient {
		forget = append(forget, key.ByDomain(), key.ByNetwork())
	}
	entries := p.facts(q, key)
	for _, s := range []*side{&p.was, &p.would} {
		for _, id := range forget {
			if id == "" {
				continue
			}
			if _, err := s.store.Delete(ctx, []greylist.ID{id}); err != nil {
				return err
			}
		}
		if err := s.store.Put(ctx, entries); err != nil {
			return err
		}
	}
	o, err := p.was.look(ctx, key, q.Request.Received)
	if p.seen[triplet(key)] && !byClient || !fits(q.Greylist, o) {
		p.report.Misfits++
	} else {
		p.report.Before++
	}
	return err
}

// facts returns what the daemon must have known to give its answer.
func (p *greylistPlayer) facts(q *Question, key greylist.Key) []greylist.Entry {
	now, j := greylist.At(q.Request.Received), q.Greylist
	limits := &p.was.check.Limits
	before := func(d time.Duration) greylist.Stamp { return now - greylist.Stamp(d.Milliseconds()) }
	switch j.Reason {
	case record.GreylistAutoAllowed:
		passes := max(limits.AllowAfter, p.would.check.Limits.AllowAfter, 1)
		return []greylist.Entry{{ID: greylist.ID(key.Creditor()), Client: greylist.Client{Passes: passes, Last: now}}}
	case record.GreylistAllowedByHand:
		return []greylist.Entry{{ID: key.NetworkClient(), Client: greylist.Client{Manual: true, Last: now}}}
	case record.GreylistKnown:
		if p.would.check.Limits.PassTTL < limits.PassTTL {
			p.report.Unknown[unknownSeen]++
		}
		return []greylist.Entry{{ID: triplet(key), Triplet: greylist.Triplet{First: now - 1, Last: now, Passed: now - 1}}}
	case record.GreylistWaited:
		first := before(max(j.Detail.Waited, limits.Delay))
		return []greylist.Entry{{ID: triplet(key), Triplet: greylist.Triplet{First: first, Last: first}}}
	case record.GreylistEarly:
		first := before(max(limits.Delay-j.Left, 0))
		return []greylist.Entry{{ID: triplet(key), Triplet: greylist.Triplet{First: first, Last: first}}}
	}
	return nil
}
