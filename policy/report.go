package policy

import (
	"time"

	"github.com/postern-mail/postern/internal/record"
)

// Load counts the requests that are being answered.
type Load interface {
	RequestStarted()
	RequestDone()
}

// Reporter makes one record for each decision, and for each connection that
// ended because the client broke the protocol.
type Reporter struct {
	Records record.Sink
	Load    Load
}

const daemonName = "policyd"

// decision records the answer to r at now. rec is reused for each request of a
// connection. The fields that are not set here stay empty.
func (p Reporter) decision(rec *record.Record, r *Request, d *Decision, a Action, now time.Time) {
	rec.Daemon = daemonName
	rec.Check, rec.Verdict, rec.Reason, rec.Err = d.Check, d.Kind.String(), d.Reason, d.Err
	if w := &d.Would; d.Mode == Shadow {
		rec.Check, rec.Verdict, rec.Reason, rec.Err = w.Check, w.Kind.String(), w.Reason, w.Err
	}
	rec.Action = a.String()
	rec.Mode = d.Mode.String()
	rec.Instance = r.Instance
	rec.QueueID = r.QueueID
	rec.ClientAddress = r.rawClientAddress
	rec.ClientPort = r.Client.Port
	rec.ClientName = r.Client.Name
	rec.Helo = r.Helo
	rec.Sender = r.senderForRecord()
	rec.Recipient = r.Recipient.Raw
	rec.SASLUsername = r.Login
	rec.Duration = now.Sub(r.Received)
	rec.Steps = d.recordSteps(rec.Steps[:0])
	p.Records.Record(rec, now)
}

// broken records a connection that is closed without an answer, as the protocol
// asks when no sensible answer exists.
func (p Reporter) broken(peer string, reason record.Reason, err error) {
	p.Records.Record(&record.Record{
		Daemon:  daemonName,
		Verdict: "error",
		Reason:  reason,
		Action:  "none, connection closed",
		Mode:    Enforce.String(),
		Peer:    peer,
		Err:     err,
	}, time.Now())
}

// senderForRecord returns "<>" for the null sender, so that its record differs
// from one without a sender.
func (r *Request) senderForRecord() string {
	if r.Sender.Raw == "" && r.State.HasSender() {
		return "<>"
	}
	return r.Sender.Raw
}
