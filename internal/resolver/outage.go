package resolver

import (
	"context"
	"errors"
	"time"

	"github.com/postern-mail/postern/internal/breaker"
)

// maxOutagePause is the longest pause between two looks whether a server answers
// again. The first is breaker's.
const maxOutagePause = 8 * time.Second

// outage is the breaker over all servers together. What strangers have us ask must
// not open it, so it hears of two things only: answers, of whatever kind, and
// silence about the root, which every server knows.
type outage struct {
	breaker *breaker.Breaker
	looking chan struct{} // holds one value while somebody asks about the root
}

func newOutage(now func() time.Time, changed func(breaker.Change)) *outage {
	return &outage{
		breaker: breaker.New(breaker.Config{
			Failures: 1, // of a look, which has asked every server
			Last:     maxOutagePause,
			Changed:  changed,
			Now:      now,
		}),
		looking: make(chan struct{}, 1),
	}
}

func (o *outage) open() bool { return o.breaker.Down() != nil }

func (o *outage) failure() *failure {
	cause := ErrDown
	if err := o.breaker.Down(); err != nil {
		cause = errors.Join(ErrDown, err)
	}
	return &failure{kind: failDown, cause: cause}
}

// refuse returns the failure of a question that is not sent because no server
// answers, or nil. When it is time, the servers are asked about the root
// meanwhile.
func (r *Resolver) refuse() *failure {
	if !r.outage.open() {
		return nil
	}
	r.count.refusedDown.Add(1)
	fail := r.outage.failure()
	r.look()
	return fail
}

// suspect asks the servers about the root when one has said nothing at all while
// it was asked. It is called by a question in flight.
func (r *Resolver) suspect() {
	if !r.outage.open() {
		r.look()
	}
}

// look asks every server about the root, unless that is being done, and tells the
// breaker whether one answered. Nobody waits for it.
func (r *Resolver) look() {
	select {
	case r.outage.looking <- struct{}{}:
	default:
		return
	}
	question, err := r.outage.breaker.Allow()
	if err != nil || !r.places.start(func() {
		defer func() { <-r.outage.looking }()
		question.Done(r.askRoot())
	}) {
		if err == nil {
			question.Abandon()
		}
		<-r.outage.looking
	}
}

// askRoot returns nil as soon as a server has said anything about the root.
func (r *Resolver) askRoot() error {
	ctx, cancel := context.WithCancel(r.lifetime())
	defer cancel()
	heard := make(chan *failure, len(r.servers.all))
	for _, s := range r.servers.all {
		go func() {
			_, fail := r.try(ctx, s, question{qtype: TypeNS})
			heard <- fail
		}()
	}
	var last error
	answered := false
	for range r.servers.all {
		switch fail := <-heard; {
		case fail == nil, fail.kind == failAnswer:
			answered = true
			cancel()
		case !answered:
			last = fail.cause
		}
	}
	if answered {
		return nil
	}
	return last
}
