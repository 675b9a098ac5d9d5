package resolver

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/breaker"
)

// maxOutagePause is the longest pause between two checks whether a server answers
// again. The first pause is that of package breaker.
const maxOutagePause = 8 * time.Second

// outage is one breaker for all servers together. Questions that strangers cause
// must not open it. So it counts only two things: answers of any kind, and silence
// about the root, which every server knows.
type outage struct {
	breaker *breaker.Breaker

	mu      sync.Mutex
	looking chan struct{} // closed at the end of the questions about the root; nil when there are none
}

func newOutage(now func() time.Time, changed func(breaker.Change)) *outage {
	return &outage{
		breaker: breaker.New(breaker.Config{
			Failures: 1, // of a check, which has asked every server
			Last:     maxOutagePause,
			Changed:  changed,
			Now:      now,
		}),
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
// answers, or nil. When it is time, the servers are asked about the root at the
// same time. A question of our own waits for that: no mail depends on it, and it
// may be the only question for a long time.
func (r *Resolver) refuse(ctx context.Context) *failure {
	if !r.outage.open() {
		return nil
	}
	looked := r.look()
	if looked != nil && askingOf(ctx).who == nil {
		select {
		case <-looked:
		case <-ctx.Done():
		}
		if !r.outage.open() {
			return nil
		}
	}
	r.count.refusedDown.Add(1)
	return r.outage.failure()
}

// suspect asks the servers about the root after one of them sent nothing at all
// during a try. It is called by a question in flight.
func (r *Resolver) suspect() {
	if !r.outage.open() {
		r.look()
	}
}

// look asks every server about the root and reports to the breaker whether one
// answered. It does nothing when a check is running already or when it is too
// early. The returned channel is closed when the running check ends. It is nil when
// none runs.
func (r *Resolver) look() (looked <-chan struct{}) {
	o := r.outage
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.looking != nil {
		return o.looking
	}
	question, err := o.breaker.Allow()
	if err != nil {
		return nil
	}
	done := make(chan struct{})
	started := r.places.start(func() {
		defer close(done)
		question.Done(r.askRoot())
		o.mu.Lock()
		o.looking = nil
		o.mu.Unlock()
	})
	if !started {
		question.Abandon()
		return nil
	}
	o.looking = done
	return done
}

// askRoot returns nil as soon as a server has sent any answer about the root.
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
