package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/internal/record"
)

// OnError is the rule for a check that could not tell.
type OnError uint8

// ErrorPass goes on as if the check had nothing to say, ErrorDefer answers
// with a temporary failure.
const (
	ErrorPass OnError = iota
	ErrorDefer
)

// Entry is one check with the rules that the chain applies to it.
type Entry struct {
	Check   Check
	Mode    Mode
	OnError OnError
	// ErrorReason is the reason of a decision that rests on OnError;
	// "" means record.CheckFailed.
	ErrorReason record.Reason
}

// Chain asks its checks in order and settles on one decision. It is immutable
// and safe for concurrent use.
type Chain []Entry

// errorText is what the client reads when a check could not tell. It is
// Postfix's own text for a map that cannot be read, and says nothing about
// our inside.
const errorText = "Temporary lookup failure"

// Decide asks the checks until one objects. Each gets an even share of the
// time that is left until ctx's deadline, so that a check which waits for a
// dead server leaves time to those behind it.
func (c Chain) Decide(ctx context.Context, r *Request) Decision {
	var d Decision
	c.decide(ctx, r, &d)
	return d
}

// decide is Decide into a decision that has been reset.
func (c Chain) decide(ctx context.Context, r *Request, d *Decision) {
	d.Kind, d.Reason = Pass, record.NotApplicable
	var signals Signals
	for i := range c {
		e := &c[i]
		d.Steps = append(d.Steps, Step{Check: e.Check.Name(), Mode: e.Mode})
		step := &d.Steps[len(d.Steps)-1]
		step.Verdict, step.Err = e.ask(ctx, r, signals, len(c)-i)
		signals = merge(signals, step.Verdict.Signals)
		if e.settles(d, &step.Verdict, step.Err) {
			break
		}
	}
	d.applyHold()
	c.settle(ctx, r, d)
}

// settle reports to the checks that count what became of the request.
func (c Chain) settle(ctx context.Context, r *Request, d *Decision) {
	for i := range c {
		s, ok := c[i].Check.(Settler)
		if !ok {
			continue
		}
		var own *Verdict
		if i < len(d.Steps) && d.Steps[i].Err == nil {
			own = &d.Steps[i].Verdict
		}
		s.Settle(ctx, r, own, d)
	}
}

// ask runs the check within its share of the time.
func (e *Entry) ask(ctx context.Context, r *Request, prior Signals, left int) (Verdict, error) {
	if left > 1 {
		if deadline, ok := ctx.Deadline(); ok {
			var end func()
			ctx, end = shareOf(ctx, time.Until(deadline)/time.Duration(left))
			defer end()
		}
	}
	v, err := e.Check.Check(ctx, r, prior)
	if err != nil {
		return Verdict{Reason: e.errorReason(err), Signals: v.Signals, Detail: v.Detail}, err
	}
	return v, nil
}

func (e *Entry) errorReason(err error) record.Reason {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return record.DeadlineSpent
	case e.ErrorReason != "":
		return e.ErrorReason
	}
	return record.CheckFailed
}

// settles enters the check's answer into d and reports whether it ends the
// chain.
func (e *Entry) settles(d *Decision, v *Verdict, err error) bool {
	if err != nil {
		err = fmt.Errorf("%s: %w", e.Check.Name(), err)
		if e.OnError == ErrorPass {
			d.passOver(e, v, err)
			return false
		}
		v = &Verdict{Kind: Defer, Reason: v.Reason, Code: CodeTemporary, Text: errorText}
	}
	switch {
	case v.Kind == None:
		return false
	case v.Kind == Pass:
		d.pass(e, v)
		return false
	case e.Mode == Shadow:
		d.watch(Would{e.Check.Name(), v.Kind, v.Reason, err})
		return false
	case v.Kind == Hold:
		d.pass(e, v)
		d.hold, d.holder = *v, e.Check.Name()
		return false
	}
	d.Verdict, d.Check, d.Mode, d.Err = *v, e.Check.Name(), Enforce, err
	return true
}

// applyHold has the message held if a check asked for it and none objected.
func (d *Decision) applyHold() {
	if d.hold.Kind == Hold && (d.Kind == Pass || d.Kind == Hold) {
		d.Verdict, d.Check, d.Err = d.hold, d.holder, nil
	}
}

// watch keeps the first objection of a shadowed check.
func (d *Decision) watch(w Would) {
	if d.Mode != Shadow {
		d.Mode, d.Would = Shadow, w
	}
}

// pass keeps the last check's reason, and the last header.
func (d *Decision) pass(e *Entry, v *Verdict) {
	header := d.Header
	if v.Header != "" && e.Mode == Enforce {
		header = v.Header
	}
	d.Verdict, d.Check, d.Err = *v, e.Check.Name(), nil
	d.Header, d.Text = header, ""
}

// passOver lets a request go on although the check could not tell. Unless a later
// check has something to say, the decision rests on that.
func (d *Decision) passOver(e *Entry, v *Verdict, err error) {
	d.Verdict = Verdict{Kind: Pass, Reason: v.Reason, Header: d.Header}
	d.Check, d.Err = e.Check.Name(), err
}

func merge(into, from Signals) Signals {
	if len(from) == 0 {
		return into
	}
	if into == nil {
		into = make(Signals, len(from))
	}
	for name, value := range from {
		into[name] = value
	}
	return into
}
