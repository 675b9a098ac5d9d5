package policy

import "github.com/postern-mail/postern/internal/record"

// Mode is how a check takes part.
type Mode uint8

// A shadowed check is asked, recorded and counted; its signals reach later
// checks; it never changes the reply.
const (
	Enforce Mode = iota
	Shadow
)

var modeNames = [...]string{Enforce: record.ModeEnforce, Shadow: record.ModeShadow}

func (m Mode) String() string { return modeNames[m] }

// Step is what one check said on the way to a decision.
type Step struct {
	Check   string
	Mode    Mode
	Verdict Verdict
	Err     error // the check could not tell
}

// Decision is what the chain settled on.
type Decision struct {
	Verdict
	Check string // the check that decided; "" when none had anything to say
	Mode  Mode   // Shadow when only shadowed checks objected
	Steps []Step
	Err   error // why a check could not tell, when that decided
	// Would is what would have decided when Mode is Shadow: the first shadowed
	// check that objected. It is what the record and the counter name.
	Would Would

	hold   Verdict // what a check wants held, if no other objects
	holder string  // the check
}

// Would is a decision that was only watched.
type Would struct {
	Check  string
	Kind   Kind
	Reason record.Reason
	Err    error
}

// reset makes d new, and keeps the memory of its steps.
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
			Err:     s.Err,
		}
		if s.Err != nil {
			step.Verdict = "error"
		}
		if s.Mode != Enforce {
			step.Mode = s.Mode.String()
		}
		steps = append(steps, step)
	}
	return steps
}
