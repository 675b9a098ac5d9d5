package policy

import (
	"context"

	"github.com/postern-mail/postern/internal/record"
)

// Kind is the kind of a verdict. There is none for a failure: the check returns
// an error, and the chain decides what follows from it.
type Kind uint8

// The kinds, from the least to the most severe.
const (
	None   Kind = iota // the check does not apply to this request
	Pass               // no objection
	Hold               // no objection, but the whole message waits in Postfix's hold queue
	Defer              // try again later
	Reject             // never
)

var kindNames = [...]string{None: "none", Pass: "pass", Hold: "hold", Defer: "defer", Reject: "reject"}

func (k Kind) String() string { return kindNames[k] }

// Signal names a fact that one check found and a later one may use.
type Signal string

// Signals are the facts that earlier checks found. A nil map is empty.
type Signals map[Signal]int

// Verdict is a check's answer.
type Verdict struct {
	Kind   Kind
	Reason record.Reason
	// Code is the SMTP reply code of a Reject or Defer. Its zero value means
	// the general code of the Kind (see reply in action.go).
	Code Code
	// Text is the reply text of a Reject or Defer, or what Postfix logs for a
	// Hold. Postfix puts the address and its kind before a reply text.
	Text string
	// Header is a "Name: value" line that a Pass prepends; "" for none.
	Header  string
	Signals Signals
	// Detail is the basis of the verdict, for the record only.
	Detail string
	// Unknown is what the check could not get to know, if it has a verdict without that. If
	// the verdict lets the mail pass, the step counts as one that could not decide.
	Unknown error
}

// Check answers one question about a request.
type Check interface {
	// Name is the word that --checks, --shadow and policy_context use.
	Name() string
	// Check returns a verdict, or an error if it could not decide. prior holds
	// the signals of the earlier checks. Check must return soon after ctx ends.
	// It must not keep r or prior, because the next request reuses their
	// memory.
	Check(ctx context.Context, r *Request, prior Signals) (Verdict, error)
}

// Settler is a check that needs the final decision, because it counts accepted
// mail.
type Settler interface {
	Check
	// Settle is called with the decision d after all checks have been asked.
	// own is the check's own verdict, nil when an earlier check ended the chain
	// or this one failed. Settle must return soon after ctx ends, and keep none
	// of its arguments.
	Settle(ctx context.Context, r *Request, own *Verdict, d *Decision)
}
