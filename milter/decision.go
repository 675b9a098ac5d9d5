package milter

import (
	"context"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
)

// Handler decides about the messages of one role.
type Handler interface {
	// Begin is called at MAIL. It must not wait. It may start what takes time, which
	// ends with ctx; ctx lives as long as the message. An answer other than Continue
	// settles the message and needs no Work. Without Work, Continue means Accept.
	//
	// s never changes. m changes between the calls, in the calling goroutine only:
	// goroutines that are started here must work on copies.
	Begin(ctx context.Context, s *Session, m *Message) (Work, Answer, error)
}

// Work is one message under way. Its methods are called in the order Headers,
// Body, Finish; any of them may be the last, because MTAs abort messages.
type Work interface {
	// Headers is called when [Message.Header] is complete. An answer other than
	// Continue settles the message. Body and Finish are not called then.
	Headers(ctx context.Context) (Answer, error)
	// Body gets the next chunk, up to 65,535 octets with CRLF line ends, which
	// must not be kept. After an error it is not called again, and neither is
	// Finish.
	Body(chunk []byte) error
	// Finish decides when the body has ended, before the deadline of ctx. Progress
	// packets keep the MTA waiting. After an error only the Details of the decision
	// are used.
	Finish(ctx context.Context) (Decision, error)
	// Close is called once, when the message is over for any reason and its context
	// has ended.
	Close()
}

// Gate is Work that also decides about each recipient. Listeners of kind SignOnly do not
// ask it.
type Gate interface {
	// Recipient is called for each RCPT. Reject and Defer refuse this recipient only;
	// Accept means Continue.
	Recipient(ctx context.Context, to mailaddr.Address) (Answer, error)
}

// Verdict is what becomes of a message.
type Verdict uint8

// Verdicts. Continue lets the message go on; at its end, it means deliver.
const (
	Continue Verdict = iota
	Accept           // settle: deliver unchanged, call the handler no more
	Reject           // refuse for good, 5xx
	Defer            // refuse for now, 4xx
)

// String returns the word for records.
func (v Verdict) String() string {
	switch v {
	case Reject:
		return "reject"
	case Defer:
		return "defer"
	}
	return "pass"
}

// Reply is the SMTP reply to a client whose mail is refused. A Reject has a code from
// 500 to 599 and a status of class 5, a Defer a code from 400 to 499 and a status of
// class 4. Values that are zero or not valid are replaced by defaults.
type Reply struct {
	Code   int    // 550, 451; never 421, which would end the SMTP session
	Status string // RFC 3463, such as "5.7.1"
	Text   string // ASCII; lines are split at line feeds and at 400 octets
}

// Answer is a handler's answer at one stage of a message.
type Answer struct {
	Verdict Verdict
	Reply   Reply // of Reject and Defer
	Reason  record.Reason
	// Err is what went wrong. The answer is valid in spite of it.
	Err     error
	Details Details
}

// Details are the findings that a decision's record shows besides the verdict.
type Details struct {
	Check       string // the check that decided, "" for that of the role
	Would       *Would // what would have been done, in shadow mode
	Steps       []record.Step
	From        string // author domain or address, as the handler judged it
	SPF         string
	DKIM        string
	ARC         string
	DMARC       string
	Disposition string
	SignedBy    string // "domain/selector", comma-separated
}

// Decision is what becomes of a whole message. Modifications are made only when it is
// delivered: changes first, then deletions from the highest index to the lowest, then
// insertions. So every index counts the fields as the milter saw them.
type Decision struct {
	Answer
	Change []Replacement
	Delete []Position
	Insert []Insertion
	// Failed is set when no verdict was reached. The configured rule replaces the
	// verdict, as after an error, but the modifications are made if the message is
	// delivered.
	Failed error
	// Quarantine is the reason to put the message into the hold queue, "" not to.
	Quarantine string
}

// Position is one header field among those that the milter saw: the Index-th of
// its name, from 1, names compared ignoring case.
type Position struct {
	Name  string
	Index int
}

// Replacement is a new value of a field, see [Insertion] for its form.
type Replacement struct {
	Position
	Value string
}

// Insertion is a new field. Several insertions at one index keep the order of the
// list in the message.
type Insertion struct {
	// Index is 0 for the very top, above the MTA's own Received field, and n for
	// below n fields.
	Index int
	Name  string
	// Value is the text behind the colon. It gets a space in front unless it
	// begins with white space. Folds are CRLF or LF and white space; other line
	// ends and control characters are removed.
	Value string
}

// Would is what would have become of a message if a check in shadow mode were
// enforced. The record and the counter name it.
type Would struct {
	Verdict Verdict
	Reason  record.Reason
}
