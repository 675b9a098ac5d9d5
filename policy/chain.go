package policy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/internal/record"
)

// OnError is the rule for a check that fails with an error.
type OnError uint8

// ErrorPass goes on as if the check had no objection. ErrorDefer answers with a
// temporary failure.
const (
	ErrorPass OnError = iota
	ErrorDefer
)

// Entry is one check with the rules that the chain applies to it.
type Entry struct {
	Check   Check
	Mode    Mode
	OnError OnError
	// ErrorReason is the reason of a decision made by OnError; "" means
	// record.CheckFailed.
	ErrorReason record.Reason
	// quiet leaves no step when the check does not apply, and takes no share of the time.
	// Quiet entries are the last of a chain.
	quiet bool
}

// Chain asks its checks in order and makes one decision of their verdicts. It
// is immutable and safe for concurrent use.
type Chain []Entry

// errorText is the reply when a check fails. It is Postfix's own text for a
// table that cannot be read, and shows nothing internal.
const errorText = "Temporary lookup failure"

// Decide asks the checks until one objects. Each check gets an even share of
// the time that is left until ctx's deadline. So a check that waits for a dead
// server leaves time for the later ones.
func (c Chain) Decide(ctx context.Context, r *Request) Decision {
	var d Decision
	c.decide(ctx, r, &d)
	return d
}

// decide is Decide, with the result in d, which must have been reset.
func (c Chain) decide(ctx context.Context, r *Request, d *Decision) {
	d.Kind, d.Reason = Pass, record.NotApplicable
	asked := len(c.Asked())
	if asked == 0 {
		d.Reason = record.NoChecks
	}
	var signals Signals
	for i := range c {
		e := &c[i]
		d.Steps = append(d.Steps, Step{Check: e.Check.Name(), Mode: e.Mode})
		step := &d.Steps[len(d.Steps)-1]
		step.Verdict, step.Err = e.runCheck(ctx, r, signals, asked-i)
		if e.quiet && step.Verdict.Kind == None && step.Err == nil {
			d.Steps = d.Steps[:len(d.Steps)-1]
			continue
		}
		signals = merge(signals, step.Verdict.Signals)
		if e.settles(d, &step.Verdict, step.Err) {
			break
		}
	}
	d.applyHold()
	if r.State == StateOther && d.Check == "" && asked > 0 {
		d.Reason, d.Err = record.UnknownState, errUnknownState
	}
	c.settle(ctx, r, d)
}

// Asked returns the checks that the hook names, without those that are asked in every
// hook (RouterOptions.Always).
func (c Chain) Asked() Chain {
	for len(c) > 0 && c[len(c)-1].quiet {
		c = c[:len(c)-1]
	}
	return c
}

// errUnknownState is the error of a request that no check can judge. It passes, because a
// later Postfix may ask in more states, but not silently.
var errUnknownState = errors.New("protocol_state is missing, or not a state of Postfix that is known here, so no check applies")

// settle reports the decision to the checks that count.
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

// runCheck runs the check within its share of the time.
func (e *Entry) runCheck(ctx context.Context, r *Request, prior Signals, left int) (Verdict, error) {
	if whole, ok := ctx.(*wholeBudget); ok && left > 1 {
		part := whole.share(left)
		defer part.end()
		ctx = part
	} else if deadline, ok := ctx.Deadline(); ok && left > 1 {
		var end func()
		ctx, end = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer end()
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

// settles enters the check's verdict into d and reports whether it ends the
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

// applyHold holds the message if a check asked for it and none objected.
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

// pass keeps the reason of the last check that passed, and the last header.
func (d *Decision) pass(e *Entry, v *Verdict) {
	header := d.Header
	if v.Header != "" && e.Mode == Enforce {
		header = v.Header
	}
	d.Verdict, d.Check, d.Err = *v, e.Check.Name(), v.Unknown
	d.Header, d.Text = header, ""
}

// passOver continues after a check that failed. The failure is the decision's
// reason unless a later check passes or objects.
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
