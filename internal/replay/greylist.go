package replay

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/internal/maillog"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy/checks"
)

// greylistPlayer replays questions to two greylists.
type greylistPlayer struct {
	was, would side
	ways       *ways
	returns    maillog.Timed[greylist.Key] // tries that are not in the records
	seen       map[greylist.ID]bool        // the triplets that records have been about
	sameFloods bool
	report     *Report
	counts     *Greylisted
	show       int
}

// side is a greylist with its own store.
type side struct {
	check *checks.Greylist
	store *memstore.Store
	flood *greylist.Flood
}

// newGreylistPlayer copies the checks. Floods in the records apply to the daemon's side,
// and to the other side unless its bounds differ.
func newGreylistPlayer(o *Options, report *Report) *greylistPlayer {
	p := &greylistPlayer{was: newSide(o.Was), would: newSide(o.Would), ways: newWays(), seen: map[greylist.ID]bool{}, report: report, show: o.Show}
	p.sameFloods = o.Was.FloodCap == o.Would.FloodCap && p.was.check.Limits.NetworkCap == p.would.check.Limits.NetworkCap
	p.was.unbound()
	if p.sameFloods {
		p.would.unbound()
	}
	return p
}

// reset sets all counts to zero.
func (p *greylistPlayer) reset() {
	p.counts = new(Greylisted)
	p.report.Greylist = p.counts
	p.ways.was, p.ways.would = sideCounter{}, sideCounter{}
}

func newSide(s Settings) side {
	c := *s.Greylist
	return side{check: &c, store: memstore.New(memstore.Options{}), flood: greylist.NewFlood(s.FloodCap)}
}

// unbound removes the bound on new senders, because the records show when there were too
// many.
func (s *side) unbound() {
	s.check.Limits.NetworkCap, s.flood = 0, greylist.NewFlood(0)
}

// look judges and changes nothing.
func (s *side) look(ctx context.Context, key greylist.Key, now time.Time) (greylist.Outcome, error) {
	known, err := s.store.Peek(ctx, key)
	return greylist.Decide(known, now, s.check.Limits), err
}

// sight judges and remembers, as the check does.
func (s *side) sight(ctx context.Context, key greylist.Key, now time.Time) (greylist.Outcome, error) {
	limits := s.check.Limits
	limits.Full = s.flood.Full(now)
	known, err := s.store.Seen(ctx, key, now, limits)
	if err != nil {
		return greylist.Outcome{}, err
	}
	o := greylist.Decide(known, now, limits)
	switch o.Why {
	case greylist.New:
		s.flood.Made()
	case greylist.Waited:
		err = s.store.Credit(ctx, key.Creditor(), now)
	}
	return o, err
}

// play replays a question that the daemon's greylist was asked.
func (p *greylistPlayer) play(ctx context.Context, q *Question) error {
	p.counts.Asked++
	if err := p.comeBack(ctx, q.Request.Received); err != nil {
		return err
	}
	j := q.Greylist
	if j.Reason == "" {
		p.report.Unknown[unknownPostfix]++
	}
	if noAnswer(j.Reason) {
		p.report.Unknown[unknownStore]++
		return nil
	}
	key := p.was.check.Key(q.Request, j.Detail)
	if err := p.correct(ctx, q, key); err != nil {
		return err
	}
	if reason := p.exempts(q); reason != "" {
		if p.defers(q) {
			p.follow(q, key, reason, greylist.Outcome{})
		}
		return nil
	}
	o, ok, err := p.askOtherSide(ctx, q, key)
	if err != nil || !ok {
		return err
	}
	p.follow(q, key, checks.GreylistReason(o.Why), o)
	p.keepOut(q, key, o)
	return nil
}

// miss replays a question that only the daemon's greylist was asked. On the other side,
// a check before the greylist has refused the mail.
func (p *greylistPlayer) miss(ctx context.Context, q *Question) error {
	p.counts.Asked++
	key := p.was.check.Key(q.Request, q.Greylist.Detail)
	if err := p.correct(ctx, q, key); err != nil {
		return err
	}
	now, id := q.Request.Received, wayOf(key)
	m := p.ways.at(id, now, p.was.check.Limits.RetryWindow)
	if p.defers(q) {
		p.ways.was.deferred(q.sender())
		if m == nil {
			m = p.ways.begin(id, now)
		}
		m.was, m.last = true, now
		return nil
	}
	if m != nil {
		p.letInWas(m, now)
	}
	return nil
}

// letInWas records that the daemon has let a mail pass.
func (p *greylistPlayer) letInWas(m *way, now time.Time) {
	if m.wasIn {
		return
	}
	m.wasIn = true
	if m.was {
		p.ways.was.letIn(now.Sub(m.since), true)
	}
}

func noAnswer(r record.Reason) bool {
	return slices.Contains([]record.Reason{record.GreylistUnavailable, record.CheckFailed, record.DeadlineSpent}, r)
}

// defers reports whether the daemon's greylist has deferred a mail.
func (p *greylistPlayer) defers(q *Question) bool {
	if q.Greylist.Reason == "" {
		return q.Deferred
	}
	return slices.Contains([]record.Reason{record.GreylistNew, record.GreylistEarly, record.GreylistFlood, record.GreylistFloodNetwork}, q.Greylist.Reason)
}

// exempts returns the reason why the other side does not ask its store, or "" if it does.
// If both sides agree, the reason in the record is used, because lists may have changed
// since.
func (p *greylistPlayer) exempts(q *Question) record.Reason {
	r, j := q.Request, q.Greylist
	was, would := p.was.check.Exempt(r), p.would.check.Exempt(r)
	switch {
	case was != would && would != "", j.Reason == "" && would != "":
		return would
	case was == would && !j.Detail.HasKey && j.Reason != "":
		return j.Reason
	}
	if !j.Detail.HasKey && j.Reason != "" && !p.would.check.Keyer.NetworkKey {
		p.report.Unknown[unknownSPF]++
	}
	wasAllows, wouldAllows := p.was.check.AllowsSender(r), p.would.check.AllowsSender(r)
	switch {
	case wouldAllows && !wasAllows && j.Detail.Proven(), wouldAllows == wasAllows && j.Reason == record.GreylistSenderAllowed:
		return record.GreylistSenderAllowed
	case !p.would.check.OnlySuspicious:
		return ""
	case j.Reason == record.GreylistNotSuspicious || j.Reason == record.GreylistUnsure:
		return j.Reason
	case !j.Detail.Suspicious:
		p.report.Unknown[unknownSuspicion]++
	}
	return ""
}

// askOtherSide asks the other side. ok is false for a mail that would not have returned, because
// the other side has let it pass sooner.
func (p *greylistPlayer) askOtherSide(ctx context.Context, q *Question, key greylist.Key) (o greylist.Outcome, ok bool, err error) {
	now := q.Request.Received
	m := p.ways.at(wayOf(key), now, p.was.check.Limits.RetryWindow)
	switch {
	case m == nil:
	case m.wouldIn && m.wouldFrom.IsZero():
		p.follow(q, key, "", greylist.Outcome{})
		return o, false, nil
	case now.Before(m.wouldFrom):
		return greylist.Outcome{Why: greylist.Early, Wait: m.wouldFrom.Sub(now)}, true, nil
	case !m.wouldFrom.IsZero():
		delete(p.ways.open, wayOf(key)) // it has come back meanwhile
	}
	if p.was.check.Keyer.NetworkKey && !p.would.check.Keyer.NetworkKey && q.Greylist.Detail.HasKey {
		p.report.Unknown[unknownDomain]++
	}
	would := p.would.check.Key(q.Request, q.Greylist.Detail)
	if flood, ok := floods[q.Greylist.Reason]; ok && p.sameFloods {
		if o, err = p.would.look(ctx, would, now); o.Why == greylist.New {
			o.Why = flood // and it is not remembered
		}
		return o, true, err
	}
	o, err = p.would.sight(ctx, would, now)
	return o, true, err
}

// floods are the reasons for too many new senders.
var floods = map[record.Reason]greylist.Why{record.GreylistFlood: greylist.FloodDaemon, record.GreylistFloodNetwork: greylist.FloodNetwork}

// wayOf returns the name of a mail.
func wayOf(key greylist.Key) greylist.ID {
	return greylist.TripletID(key.Client(), key.Sender, key.Recipient)
}

// follow records what both sides did with a mail.
func (p *greylistPlayer) follow(q *Question, key greylist.Key, reason record.Reason, o greylist.Outcome) {
	now, id := q.Request.Received, wayOf(key)
	m := p.ways.at(id, now, p.was.check.Limits.RetryWindow)
	gone := reason == "" // let in sooner
	was, would := p.defers(q), !o.Pass()
	if was {
		p.ways.was.deferred(q.sender())
	}
	if would {
		p.ways.would.deferred(q.sender())
	}
	if was != would && !gone {
		d := q.difference(cmp.Or(string(q.Greylist.Reason), wasAnswer(q)), string(reason))
		d.Wait = o.Wait.Seconds()
		p.report.differ(d, p.show)
	}
	if q.Greylist.Watch {
		p.watched(was, would, o)
		return
	}
	if m == nil && (was || would) {
		m = p.ways.begin(id, now)
	}
	if m == nil {
		return
	}
	m.last = now
	m.was, m.would = m.was || was, m.would || would
	if !was {
		p.letInWas(m, now)
	}
	if !would && !m.wouldIn {
		m.wouldIn = true
		if m.would {
			p.ways.would.letIn(now.Sub(m.since), true)
		}
	}
	if m.wasIn && m.wouldIn && m.wouldFrom.IsZero() {
		delete(p.ways.open, id)
	}
}

// watched counts judgements without effect. The mail passed at once, so that there is no
// wait on either side.
func (p *greylistPlayer) watched(was, would bool, o greylist.Outcome) {
	if was {
		p.ways.was.letIn(p.was.check.Limits.Delay, false)
	}
	if would {
		p.ways.would.letIn(o.Wait, false)
	}
}

// keepOut handles a mail that has passed and would be deferred. It is assumed to return
// as soon as it can pass.
func (p *greylistPlayer) keepOut(q *Question, key greylist.Key, o greylist.Outcome) {
	m := p.ways.open[wayOf(key)]
	if m == nil || o.Pass() || p.defers(q) || q.Greylist.Watch {
		return
	}
	if !m.wouldFrom.IsZero() { // another mail of the same sender
		p.ways.would.letIn(o.Wait, false)
		return
	}
	m.wouldFrom, m.wouldIn = q.Request.Received.Add(o.Wait), true
	p.ways.would.letIn(m.wouldFrom.Sub(m.since), false)
	p.returns.Push(m.wouldFrom, p.would.check.Key(q.Request, q.Greylist.Detail))
}

// comeBack replays to the other side the mails that are assumed to return up to now.
func (p *greylistPlayer) comeBack(ctx context.Context, now time.Time) error {
	for key, at := range p.returns.UpTo(now) {
		if _, err := p.would.sight(ctx, key, at); err != nil {
			return err
		}
	}
	return nil
}

// triplet returns the ID of the entry that is used for a key.
func triplet(key greylist.Key) greylist.ID {
	if id := key.ByDomain(); id != "" {
		return id
	}
	return key.ByNetwork()
}

// finish ends all ways and counts them.
func (p *greylistPlayer) finish() {
	p.ways.endAll()
	p.counts.Was, p.counts.Would = p.ways.was.result(), p.ways.would.result()
}
