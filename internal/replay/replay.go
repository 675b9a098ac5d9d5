// Package replay finds out from records what other settings would have done.
//
// The records are replayed to two greylists. The first has the settings of the daemon
// that wrote them, and each record corrects it. This shows what the daemon's store knew
// before the first record, and which records do not fit. The second greylist has the
// settings to try, and learns the same facts. When its answer differs, the mail continues
// differently: a mail that passed sooner does not return, and a mail that was deferred
// for longer returns at a time that is not in the records.
//
// The data passes through these files: question.go makes a question from a record or from
// lines of Postfix's log, greylist.go replays it, correct.go finds out what was known,
// way.go follows each mail until it passes, and report.go counts. limits.go replays
// questions to the limits.
//
// Invariants:
//
//   - With the settings of the daemon, there is no difference.
//   - What is not in the records is never guessed silently. It is counted under Unknown,
//     and a wait whose end is not recorded is a lower bound.
package replay

import (
	"context"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy/checks"
)

// Settings are the settings of one side.
type Settings struct {
	// Greylist is the check, without a store; nil leaves the greylist out.
	Greylist  *checks.Greylist
	FloodCap  int // as --greylist-flood
	Threshold int // as --dnsbl-threshold
	// Limits is the limit check with its own store, or nil. Rules is its settings as
	// text. If both sides have the same, limits are not replayed.
	Limits *checks.Limit
	Rules  string
	Sizes  bool // some limits are about the sizes of mails, which are not in the records
}

// Options are the settings of both sides.
type Options struct {
	Was, Would Settings
	Show       int // how many differences to list
}

// Player replays questions in the order of time.
type Player struct {
	o      Options
	grey   *greylistPlayer
	limits *limitPlayer
	report Report
}

// New returns a player.
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

// Reset sets all counts to zero. What was learned from the questions before stays known.
func (p *Player) Reset() {
	p.report = Report{Unknown: map[string]int{}}
	if p.grey != nil {
		p.grey.reset()
	}
	if p.limits != nil {
		p.limits.reset()
	}
}

// Play replays the next question.
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
		// Lists that had not answered yet might have increased the score, and the greylist
		// was not asked.
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

// Report returns the results.
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
