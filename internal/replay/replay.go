// Package replay answers from records what other settings would have done.
//
// The records are played to two greylists. One has the settings of the daemon that
// wrote them, and is corrected by what each record says: it finds out what the
// daemon's store knew before the first record, and where the records do not fit. The
// other has other settings and learns the same facts. Where it gives another answer,
// the mail takes another way from then on: who was let in sooner does not come back,
// and who is kept out longer comes back at a time that no record holds.
//
// The way of the data: question.go makes a question of a record or of a line of
// Postfix's log, greylist.go plays it, correct.go finds out what was known, way.go follows each mail until it is let in,
// report.go counts. limits.go plays the limits.
//
// Invariants:
//
//   - With the settings of the daemon there is no difference.
//   - What the records do not hold is never guessed silently: it is counted under
//     Unknown, and a wait whose end is not recorded is a lower bound.
package replay

import (
	"context"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy/checks"
)

// Settings are those of one side.
type Settings struct {
	// Greylist is the check, without a store; nil leaves the greylist out.
	Greylist  *checks.Greylist
	FloodCap  int // as --greylist-flood
	Threshold int // as --dnsbl-threshold
	// Limits is the check of limits, with a store of its own; nil for none. Rules
	// spells its settings: with those of the daemon nothing is played.
	Limits *checks.Limit
	Rules  string
	Sizes  bool // some of them are about the sizes of mails, which records do not hold
}

// Options are the settings of both sides.
type Options struct {
	Was, Would Settings
	Show       int // bounds the differences that are listed
}

// Player plays questions, in the order of time.
type Player struct {
	o      Options
	grey   *greylistPlayer
	limits *limitPlayer
	report Report
}

// New makes a player.
func New(o Options) *Player {
	p := &Player{o: o}
	if o.Was.Greylist != nil && o.Would.Greylist != nil {
		p.grey = newGreylistPlayer(&o, &p.report)
	}
	if o.Was.Rules != o.Would.Rules {
		p.limits = newLimitPlayer(o.Would.Limits, &p.report, o.Show)
	}
	p.Reset()
	return p
}

// Reset begins to count anew. What the questions before have brought to light stays
// known.
func (p *Player) Reset() {
	p.report = Report{Unknown: map[string]int{}}
	if p.grey != nil {
		p.grey.reset()
	}
	if p.limits != nil {
		p.limits.reset()
	}
}

// Play takes the next question.
func (p *Player) Play(ctx context.Context, q *Question) error {
	r := &p.report
	if r.Since.IsZero() {
		r.Since = q.Request.Received
	}
	r.Until = q.Request.Received
	r.Questions++
	refused := false
	if p.limits != nil {
		var err error
		if refused, err = p.limits.play(ctx, q); err != nil {
			return err
		}
	}
	if !refused {
		refused = p.playLists(q)
	}
	if p.grey == nil || q.Greylist == nil {
		return nil
	}
	if refused {
		return p.grey.miss(ctx, q)
	}
	return p.grey.play(ctx, q)
}

// playLists reports whether the lists would refuse a mail that they let pass.
func (p *Player) playLists(q *Question) bool {
	if p.o.Was.Threshold == p.o.Would.Threshold || q.Lists == nil || q.Lists.Failed {
		return false
	}
	was, would := q.Lists.Listed, q.Lists.Score >= p.o.Would.Threshold
	r := &p.report.Lists
	r.Asked++
	if was {
		r.WasRefused++
	}
	switch {
	case was && !would:
		// Lists that had not answered yet could have added to the score, and the
		// greylist was not asked.
		p.report.Unknown[unknownAfterList]++
		return false
	case would:
		r.WouldRefuse++
	}
	if would && !was {
		p.report.differ(q.difference(string(q.Lists.Reason), string(record.DNSBLClientListed)), p.o.Show)
		return true
	}
	return false
}

// Report returns what was found.
func (p *Player) Report() Report {
	if p.grey != nil {
		p.grey.finish()
	}
	if p.limits != nil {
		p.limits.finish()
		if p.limits.check != nil {
			p.report.Unknown[unknownCounted] = p.limits.counts.Asked
			if p.o.Would.Sizes {
				p.report.Unknown[unknownSizes] = p.limits.counts.Asked
			}
		}
	}
	return p.report
}
