package milter

import (
	"errors"
	"net/netip"
	"strconv"
	"time"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/wire"
)

// reporter makes one record for each message that was answered, each recipient that
// was refused, and each connection that the MTA did not end itself.
type reporter struct{ records record.Sink }

const (
	daemonName   = "milterd"
	closedAction = "none, connection closed"
	// maxMessageID bounds the Message-ID in records, in octets; RFC 5322 allows
	// lines of 998.
	maxMessageID = 998
)

func (p reporter) write(r *record.Record) { p.records.Record(r, time.Now()) }

// message reports the final reply to a message.
func (p reporter) message(m *message, a *Answer, action string, since time.Time) {
	r := m.record(since)
	r.describe(m, a, action)
	r.Recipient = m.Recipient.Raw
	p.write(&r.Record)
}

// recipient reports the refusal of one recipient.
func (p reporter) recipient(m *message, a *Answer, action, to string, since time.Time) {
	r := m.record(since)
	r.describe(m, a, action)
	r.Recipient = to
	p.write(&r.Record)
}

// panicked reports a panic, with what is known of the message.
func (p reporter) panicked(s *session, err error) {
	r := s.record()
	r.Reason = record.Panicked
	r.Err = err
	p.write(&r.Record)
}

// broken reports a connection that the server ended because of an error.
func (p reporter) broken(s *session, err error) {
	r := s.record()
	r.Reason = record.ConnectionLost
	var violation *wire.ProtocolError
	if errors.As(err, &violation) || errors.Is(err, wire.ErrPolicyClient) {
		r.Reason = record.BadRequest
	}
	r.Err = err
	p.write(&r.Record)
}

// draft is a record that is being filled.
type draft struct{ record.Record }

// record begins the record of a connection that ends.
func (s *session) record() draft {
	d := draft{}
	if s.msg != nil {
		d = s.msg.record(s.msg.Received)
	} else {
		d.peer(&s.peer)
	}
	d.Verdict = "error"
	d.Action = closedAction
	return d
}

// record begins the record of a message. since is when the last octet of the command
// came that the reply answers.
func (m *message) record(since time.Time) draft {
	d := draft{}
	d.peer(&m.session)
	d.Check = m.Role.String()
	d.QueueID = m.QueueID
	d.Sender = m.Sender.Raw
	if m.Sender.IsNull() {
		d.Sender = "<>"
	}
	d.SASLUsername = m.Login
	id := m.Get("Message-ID")
	d.Whose = string(m.Whose)
	d.MessageID = id[:min(len(id), maxMessageID)]
	d.Duration = time.Since(since)
	return d
}

func (d *draft) peer(s *Session) {
	d.Daemon = daemonName
	d.ClientName = s.Name
	d.ClientAddress = addrText(s.Client)
	if s.Port != 0 {
		d.ClientPort = strconv.Itoa(int(s.Port))
	}
	d.Helo = s.Helo
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// describe fills in what was decided.
func (d *draft) describe(m *message, a *Answer, action string) {
	d.Verdict = a.Verdict.String()
	d.Reason = a.Reason
	d.Action = action
	d.Err = errors.Join(m.trouble, a.Err)
	if a.Details.Check != "" {
		d.Check = a.Details.Check
	}
	if a.Verdict < Reject && notJudged(a) {
		d.Verdict = "error"
	}
	if m.settings.handler(m.Role) == nil {
		d.Verdict = "none"
	}
	d.Mode = record.ModeEnforce
	if w := a.Details.Would; w != nil {
		d.Mode, d.Verdict, d.Reason = record.ModeShadow, w.Verdict.String(), w.Reason
	}
	d.Steps = append(m.steps, a.Details.Steps...)
	d.From = a.Details.From
	d.SPF = a.Details.SPF
	d.DKIM = a.Details.DKIM
	d.ARC = a.Details.ARC
	d.DMARC = a.Details.DMARC
	d.Disposition = a.Details.Disposition
	d.SignedBy = a.Details.SignedBy
}

// notJudged reports whether an answer was given because the message could not be
// judged.
func notJudged(a *Answer) bool {
	return a.Reason == record.CheckFailed || a.Reason == record.DeadlineSpent
}
