package milter

import (
	"context"

	"github.com/postern-mail/postern/internal/record"
)

// FromCheck is how the From ownership of authenticated mail is applied.
type FromCheck struct {
	Owners *FromOwners
	// Shadow only records the decision.
	Shadow bool
	// PassOnError lets mail pass while the tables cannot be read; else it is
	// deferred.
	PassOnError bool
	// Count is called for each mail that was judged; may be nil.
	Count func(verdict string, reason record.Reason, mode string)
}

// answer judges the header of a message whose client has logged in. It ignores all
// other mail.
func (c *FromCheck) answer(ctx context.Context, m *message) Answer {
	if c == nil || !m.Authenticated() {
		return Answer{}
	}
	var r FromRuling
	err := errNoLogin
	if m.Login != "" {
		r, err = c.Owners.Decide(ctx, m.Login, m.Sender, m.Header)
	}
	a := Answer{Verdict: Continue, Reason: r.Reason, Err: r.Problem, Details: Details{Check: FromOwnership}}
	switch {
	case err != nil:
		a.Reason, a.Err = record.OwnerLookupFailed, err
		if !c.PassOnError {
			a.Verdict = Defer
			a.Reply = Reply{Code: 451, Status: "4.3.0", Text: "The owners of addresses cannot be looked up now, try again later"}
		}
	case r.Refused:
		a.Verdict = Reject
		a.Reply = Reply{Code: 550, Status: "5.7.1", Text: r.Text}
	}
	return c.note(m, a, r.Detail())
}

// note adds a step to the record of the message, whatever becomes of the message
// later.
func (c *FromCheck) note(m *message, a Answer, detail string) Answer {
	step := record.Step{Check: FromOwnership, Verdict: a.Verdict.String(), Reason: a.Reason, Detail: detail, Err: a.Err}
	if a.Verdict == Continue && a.Reason == record.OwnerLookupFailed {
		step.Verdict = "error"
	}
	mode := record.ModeEnforce
	if c.Shadow {
		step.Mode, mode = record.ModeShadow, record.ModeShadow
		a.Verdict, a.Err = Continue, nil
	}
	m.steps = append(m.steps, step)
	if a.Verdict == Continue {
		m.trouble = a.Err
	}
	if c.Count != nil {
		c.Count(step.Verdict, step.Reason, mode)
	}
	return a
}
