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

// decision reports what was answered to r at now. rec is filled again for each
// request of a connection: what differs is set, the rest stays empty.
func (p Reporter) decision(rec *record.Record, r *Request, d *Decision, a Action, now time.Time) {
	rec.Daemon = daemonName
	rec.Check = d.Check
	rec.Verdict = d.Kind.String()
	rec.Reason = d.Reason
	rec.Action = a.line
	rec.Mode = d.Mode.String()
	rec.Instance = r.Instance
	rec.QueueID = r.QueueID
	rec.ClientAddress = r.rawClientAddress
	rec.ClientPort = r.Client.Port
	rec.ClientName = r.Client.Name
	rec.Helo = r.Helo
	rec.Sender = r.senderForRecord()
	rec.Recipient = r.Recipient.Raw
	rec.SASLUsername = r.SASL.Username
	rec.Duration = now.Sub(r.Received)
	rec.Steps = d.recordSteps(rec.Steps[:0])
	rec.Err = d.Err
	rec.LogAt(p.Log, now)
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
