package policy

import (
	"context"
	"sync"
	"time"
)

// budget is the time of one request: a context with a deadline whose timer
// starts when something first waits for it. Most decisions are made from memory
// and never wait, and a timer for each would cost as much as the decision.
type budget struct {
	deadline time.Time

	mu     sync.Mutex
	ctx    context.Context // nil until something waits
	cancel context.CancelFunc
	ended  bool
}

// started returns the context with the timer, and starts it on the first call.
func (b *budget) started() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx == nil {
		b.ctx, b.cancel = context.WithDeadline(context.Background(), b.deadline)
		if b.ended {
			b.cancel()
		}
	}
	return b.ctx
}

// end releases everything that still waits.
func (b *budget) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	if b.cancel != nil {
		b.cancel()
	}
}

func (b *budget) Deadline() (time.Time, bool) { return b.deadline, true }
func (b *budget) Done() <-chan struct{}       { return b.started().Done() }

// Value lets package context see the context below, so that contexts made from
// a budget need no goroutine of their own. Package context asks with a *int as
// key. There are no other values, so a request for one starts no timer.
func (b *budget) Value(key any) any {
	if _, ok := key.(*int); !ok {
		return nil
	}
	return b.started().Value(key)
}

func (b *budget) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ctx != nil:
		return b.ctx.Err()
	case b.ended:
		return context.Canceled
	case !time.Now().Before(b.deadline):
		return context.DeadlineExceeded
	}
	return nil
}

// wholeBudget is the budget of all checks of a request. Most chains have one or two
// checks, so it has the memory for the share of the first one.
type wholeBudget struct {
	budget
	all    time.Duration // the deadline, from the last octet of the request
	first  budget
	shared bool // first is in use
}

func newBudget(r *Request, all time.Duration) *wholeBudget {
	return &wholeBudget{budget: budget{deadline: r.Received.Add(all)}, all: all}
}

// share returns a budget with an even share of the time that is left, for the
// first of some checks. It ends before b does. The first share is asked for when
// the request has just been received.
func (b *wholeBudget) share(checks int) *budget {
	n := time.Duration(checks)
	if !b.shared {
		b.shared = true
		b.first.deadline = b.deadline.Add(b.all/n - b.all)
		return &b.first
	}
	now := time.Now()
	return &budget{deadline: now.Add(b.deadline.Sub(now) / n)}
}
