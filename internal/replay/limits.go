package replay

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/maillog"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// Limited compares what limits would have done with what the daemon's limits did. A
// recipient counts when it was accepted, because records do not show whether its mail was
// completed.
type Limited struct {
	Asked int `json:"asked"`
	Was   int `json:"was_refused"` // recipients that the daemon's limits refused or put on hold
	Would int `json:"would_refuse"`
	// Mails counts the mails of Would. Over has the values that reached a limit, the worst
	// first.
	Mails int       `json:"mails"`
	Over  []Reached `json:"over"`
}

// Reached is a limit that was reached for one value of its key.
type Reached struct {
	Limit   string    `json:"limit"`
	Value   string    `json:"value"`
	Refused int       `json:"refused"` // recipients
	First   time.Time `json:"first"`
}

// maxReached bounds the values that are counted separately.
const maxReached = 100_000

// limitPlayer replays questions to the limits to try.
type limitPlayer struct {
	check  *checks.Limit // nil if there are none
	report *Report
	counts *Limited
	over   map[string]*Reached
	mails  map[string]bool
	show   int
}

func newLimitPlayer(check *checks.Limit, report *Report, show int) *limitPlayer {
	return &limitPlayer{check: check, report: report, show: show}
}

// reset sets all counts to zero.
func (p *limitPlayer) reset() {
	p.counts = new(Limited)
	p.report.Limits = p.counts
	p.over, p.mails = make(map[string]*Reached), make(map[string]bool)
}

// play reports whether the limits would refuse a mail, so that the next checks are not
// asked.
func (p *limitPlayer) play(ctx context.Context, q *Question) (refused bool, err error) {
	p.counts.Asked++
	was := isLimit(q.Decided)
	if was {
		p.counts.Was++
	}
	v := policy.Verdict{Kind: policy.Pass, Reason: record.LimitNone}
	if p.check != nil {
		if v, err = p.check.Check(ctx, q.Request, nil); err != nil {
			return false, err
		}
	}
	would := v.Kind > policy.Pass
	switch {
	case would:
		p.counts.Would++
		p.reached(q, &v)
	case p.check != nil:
		p.settle(ctx, q, &v)
	}
	if was != would {
		d := q.difference(cmp.Or(string(q.Decided), wasAnswer(q)), string(v.Reason))
		d.Login = q.Request.Login
		p.report.differ(d, p.show)
	}
	return would && v.Kind != policy.Hold, nil
}

// isLimit reports whether a reason is that of a limit.
func isLimit(r record.Reason) bool {
	return slices.Contains([]record.Reason{record.LimitRecipients, record.LimitMessages, record.LimitBytes, record.LimitNetworks, record.LimitRefused, record.LimitBlocked}, r)
}

func wasAnswer(q *Question) string {
	switch {
	case q.Deferred:
		return "deferred"
	case q.Refused:
		return "refused"
	}
	return "accepted"
}

// settle takes back the count of a recipient that another check has refused.
func (p *limitPlayer) settle(ctx context.Context, q *Question, v *policy.Verdict) {
	if !q.Deferred && !q.Refused || isLimit(q.Decided) {
		return
	}
	d := policy.Decision{Verdict: policy.Verdict{Kind: policy.Defer, Reason: q.Decided}}
	if q.Refused {
		d.Kind = policy.Reject
	}
	p.check.Settle(ctx, q.Request, v, &d)
}

// reached records the value whose limit was reached.
func (p *limitPlayer) reached(q *Question, v *policy.Verdict) {
	rule, _ := maillog.Detail(v.Detail, "limit")
	key, _, _ := strings.Cut(rule, ".")
	value, _ := maillog.Detail(v.Detail, key)
	name := rule + " " + value
	if p.over[name] == nil {
		if len(p.over) >= maxReached {
			return
		}
		p.over[name] = &Reached{Limit: rule, Value: value, First: q.Request.Received}
	}
	p.over[name].Refused++
	if mail := q.Request.Instance + " " + q.client() + " " + q.Request.Client.Port; len(p.mails) < maxWays && !p.mails[mail] {
		p.mails[mail] = true
		p.counts.Mails++
	}
}

// finish lists the values that have reached a limit.
func (p *limitPlayer) finish() {
	p.counts.Over = nil
	for _, r := range p.over {
		p.counts.Over = append(p.counts.Over, *r)
	}
	slices.SortFunc(p.counts.Over, func(a, b Reached) int {
		return cmp.Or(b.Refused-a.Refused, strings.Compare(a.Value, b.Value), strings.Compare(a.Limit, b.Limit))
	})
	p.counts.Over = p.counts.Over[:min(p.show, len(p.counts.Over))]
}
