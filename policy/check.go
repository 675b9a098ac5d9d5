package policy

import (
	"context"

	"github.com/postern-mail/postern/internal/record"
)

// Kind is what a check found. It has no word for "could not tell": that is an
// error, and the chain decides what follows from it.
type Kind uint8

// The kinds, in the order of how much they interfere.
const (
	None   Kind = iota // the check has nothing to say about this request
	Pass               // no objection
	Hold               // no objection, but the whole message waits in Postfix's hold queue
	Defer              // try again later
	Reject             // never
)

var kindNames = [...]string{None: "none", Pass: "pass", Hold: "hold", Defer: "defer", Reject: "reject"}

func (k Kind) String() string { return kindNames[k] }

// Signal names something that one check learnt and a later one may use.
type Signal string

// Signals are what the checks before learnt, by name. A nil map is empty.
type Signals map[Signal]int

// Verdict is a check's answer.
type Verdict struct {
	Kind   Kind
	Reason record.Reason
	// Code is the SMTP reply code of a Reject or Defer. Its zero value means
	// the general code of the Kind (see reply in action.go).
	Code Code
	// Text is the reply text of a Reject or Defer, for which Postfix puts the
	// address and what it is in front of it, or what Postfix logs of a Hold.
	Text string
	// Header is a "Name: value" line for a Pass to prepend; "" for none.
	Header  string
	Signals Signals
	// Detail is what the verdict rests on, for the record only.
	Detail string
}

// Check answers one question about a request.
type Check interface {
	// Name is the word that --checks, --shadow and policy_context use.
	Name() string
	// Check returns a verdict, or an error for "could not tell". prior holds
	// the signals of the checks before. It must return soon after ctx ends, and
	// keep neither r nor prior: the next request takes their place.
	Check(ctx context.Context, r *Request, prior Signals) (Verdict, error)
}

// Settler is a check that counts what passes.
type Settler interface {
	Check
	// Settle hears what became of a request, once all checks have been asked. own is
	// the check's own verdict, nil when a check before it ended the chain. It must
	// return soon after ctx ends, and keep none of its arguments.
	Settle(ctx context.Context, r *Request, own *Verdict, d *Decision)
}
