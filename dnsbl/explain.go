package dnsbl

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// Explanation is the answer of one zone about one subject.
type Explanation struct {
	Status  Status
	Subject string
	Hit     *Hit   // nil: not listed, or no answer
	Text    string // of a hit, see [Lists.Text]
	Failure *Failure
	Took    time.Duration // of the A question

	codes []Code
}

// Explain asks every zone of the subject's kind, also those out of service, and
// returns all answers. It does not change the breakers. It returns nothing when no
// list can hold the subject. Result and error are those of [Lists.Check] for the
// subject: zones out of service are shown but do not count.
func (l *Lists) Explain(ctx context.Context, subject string) ([]Explanation, Result, error) {
	q := Query{Names: []Subject{{Name: subject}}}
	if addr, err := netip.ParseAddr(subject); err == nil {
		q = Query{Address: addr}
	}
	questions := l.questions(q)
	out := make([]Explanation, len(questions))
	t := newTally(l, questions) // with the breakers as they are now
	var running sync.WaitGroup
	for n := range questions {
		running.Go(func() { out[n] = l.explain(ctx, &questions[n]) })
	}
	running.Wait()
	for n := range questions {
		if t.states[n] == pending {
			t.take(answer{n: n, codes: out[n].codes, failure: out[n].Failure})
		}
	}
	result, err := t.result()
	return out, result, err
}

func (l *Lists) explain(ctx context.Context, q *question) Explanation {
	e := Explanation{Status: q.zone.status(), Subject: q.subject}
	started := time.Now()
	codes, failure := l.resolve(ctx, q.zone, q.labels)
	e.Took, e.codes = time.Since(started), codes
	if failure != nil {
		failure.Subject = q.subject
		e.Failure = failure
	}
	if len(codes) > 0 {
		weight, counted := q.zone.score(codes)
		e.Hit = &Hit{Zone: q.zone.public, Kind: q.zone.kind, Subject: q.subject, Codes: codes, Weight: weight, Counted: counted}
		e.Text = l.text(ctx, q.zone, q.subject)
	}
	return e
}
