package policy

import "github.com/postern-mail/postern/internal/record"

// Mode is whether the verdicts of a check count.
type Mode uint8

// A shadowed check is asked, recorded and counted, and later checks get its
// signals. It never changes the reply.
const (
	Enforce Mode = iota
	Shadow
)

var modeNames = [...]string{Enforce: record.ModeEnforce, Shadow: record.ModeShadow}

func (m Mode) String() string { return modeNames[m] }

// Step is the result of one check.
type Step struct {
	Check   string
	Mode    Mode
	Verdict Verdict
	Err     error // why the check could not decide
}

// Unanswered returns what the check could not get to know, or nil.
func (s *Step) Unanswered() error {
	if s.Err != nil {
		return s.Err
	}
	return s.Verdict.Unknown
}

// Failed reports whether the check could not decide, or let the mail pass without an
// answer that could speak against it.
func (s *Step) Failed() bool {
	return s.Err != nil || s.Verdict.Unknown != nil && s.Verdict.Kind <= Pass
}

// Decision is the decision of a chain.
type Decision struct {
	Verdict
	Check string // the check that decided; "" when none applied
	Mode  Mode   // Shadow when only shadowed checks objected
	Steps []Step
	Err   error // the failure of a check, when that decided
	// Would is set when Mode is Shadow: it is the first objection of a shadowed
	// check. The record and the counter name it.
	Would Would

	hold   Verdict // the verdict of a check that wants a hold; applies if no other objects
	holder string  // the name of that check
}

// Would is a decision that was only recorded.
type Would struct {
	Check  string
	Kind   Kind
	Reason record.Reason
	Err    error
}

// reset empties d and keeps the memory of its steps.
func (d *Decision) reset() {
	steps := d.Steps[:0]
	clear(d.Steps)
	*d = Decision{Steps: steps}
}

// recordSteps appends the steps in the record's form.
func (d *Decision) recordSteps(steps []record.Step) []record.Step {
	for i := range d.Steps {
		s := &d.Steps[i]
		step := record.Step{
			Check:   s.Check,
			Verdict: s.Verdict.Kind.String(),
			Reason:  s.Verdict.Reason,
			Detail:  s.Verdict.Detail,
			Err:     s.Unanswered(),
		}
		if s.Failed() {
			step.Verdict = "error"
		}
		if s.Mode != Enforce {
			step.Mode = s.Mode.String()
		}
		steps = append(steps, step)
	}
	return steps
}
