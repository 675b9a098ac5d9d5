package policy

import (
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/record"
)

// Counter counts. Decision is called once for each record.
type Counter interface {
	RequestStarted()
	RequestDone()
	Decision(check, verdict string, reason record.Reason, mode string, took time.Duration)
}

// Reporter writes one record and bumps one counter for each decision, and for
// each connection that ended because the client broke the protocol.
type Reporter struct {
	Log     *zap.Logger
	Counter Counter
}

const daemonName = "policyd"

// scratch is a record that is filled again and again by one connection.
type scratch struct{ record.Record }

// decision reports what was answered to r.
func (p Reporter) decision(s *scratch, r *Request, d *Decision, a Action, took time.Duration) {
	rec := &s.Record
	*rec = record.Record{
		Daemon:        daemonName,
		Check:         d.Check,
		Verdict:       d.Kind.String(),
		Reason:        d.Reason,
		Action:        a.line,
		Mode:          d.Mode.String(),
		Instance:      r.Instance,
		QueueID:       r.QueueID,
		ClientAddress: r.rawClientAddress,
		ClientPort:    r.Client.Port,
		ClientName:    r.Client.Name,
		Helo:          r.Helo,
		Sender:        r.senderForRecord(),
		Recipient:     r.Recipient.Raw,
		SASLUsername:  r.SASL.Username,
		Duration:      took,
		Steps:         d.recordSteps(rec.Steps[:0]),
		Err:           d.Err,
	}
	rec.Log(p.Log)
	p.count(rec)
}

// broken reports a connection that is closed without an answer: the protocol
// asks for that where no sensible answer exists.
func (p Reporter) broken(peer string, reason record.Reason, err error) {
	rec := record.Record{
		Daemon:  daemonName,
		Verdict: "error",
		Reason:  reason,
		Action:  "none, connection closed",
		Mode:    Enforce.String(),
		Peer:    peer,
		Err:     err,
	}
	rec.Log(p.Log)
	p.count(&rec)
}

func (p Reporter) count(rec *record.Record) {
	p.Counter.Decision(rec.Check, rec.Verdict, rec.Reason, rec.Mode, rec.Duration)
}

// senderForRecord writes the null sender as "<>": its record must not look
// like one without a sender.
func (r *Request) senderForRecord() string {
	if r.Sender.Raw == "" && r.State.HasSender() {
		return "<>"
	}
	return r.Sender.Raw
}
