// Package record is the one line that both daemons write for each decision.
//
// Keys are stable: operators build alerts on them and the README documents
// them. A field that does not apply is left out of the line, so that a key
// that stands there always means something.
package record

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Message is the zap message of every decision line.
const Message = "decision"

// Record is one decision. The zero value of a field leaves its key out.
type Record struct {
	Daemon        string // "policyd" or "milterd"
	Check         string // the check that decided; "" when all passed
	Verdict       string // pass, reject, defer, error, none
	Reason        Reason
	Action        string // what Postfix was told, in Postfix's spelling
	Mode          string // enforce, shadow, off
	Peer          string // who spoke to us, on records of a broken connection
	Instance      string
	QueueID       string
	ClientAddress string
	ClientPort    string
	ClientName    string
	Helo          string
	Sender        string
	Recipient     string
	SASLUsername  string
	MessageID     string // this and what follows up to SignedBy: milterd only
	From          string // author domain
	SPF           string
	DKIM          string
	ARC           string
	DMARC         string
	Disposition   string
	SignedBy      string        // domain/selector of each signature that was added
	Duration      time.Duration // from the last byte of the request to the reply
	Steps         []Step
	Err           error // internal error text; never sent to the client
}

// Step is what one check (or one stage of a milter) said on the way.
type Step struct {
	Check    string
	Verdict  string
	Reason   Reason
	Mode     string // "" means enforce
	Detail   string // what the verdict rests on, such as the map and key; never a secret
	Err      error
	Duration time.Duration
}

// Log writes r as one line: at level info, or at level warn when it carries an
// error, so that an operator who filters by level misses no trouble.
func (r *Record) Log(l *zap.Logger) {
	level := zapcore.InfoLevel
	if r.Err != nil {
		level = zapcore.WarnLevel
	}
	l.Log(level, Message, zap.Inline(r))
}

// MarshalLogObject writes the keys of r in their documented order.
func (r *Record) MarshalLogObject(e zapcore.ObjectEncoder) error {
	str := func(key, value string) {
		if value != "" {
			e.AddString(key, value)
		}
	}
	str("daemon", r.Daemon)
	str("check", r.Check)
	str("verdict", r.Verdict)
	str("reason", string(r.Reason))
	str("action", r.Action)
	str("mode", r.Mode)
	str("peer", r.Peer)
	str("instance", r.Instance)
	str("queue_id", r.QueueID)
	str("client_address", r.ClientAddress)
	str("client_port", r.ClientPort)
	str("client_name", r.ClientName)
	str("helo", r.Helo)
	// The null sender is an answer, not an absence: it is written as "<>".
	str("sender", r.Sender)
	str("recipient", r.Recipient)
	str("sasl_username", r.SASLUsername)
	str("message_id", r.MessageID)
	str("from", r.From)
	str("spf", r.SPF)
	str("dkim", r.DKIM)
	str("arc", r.ARC)
	str("dmarc", r.DMARC)
	str("disposition", r.Disposition)
	str("signed_by", r.SignedBy)
	e.AddFloat64("duration_ms", milliseconds(r.Duration))
	if len(r.Steps) > 0 {
		if err := e.AddArray("steps", steps(r.Steps)); err != nil {
			return err
		}
	}
	if r.Err != nil {
		e.AddString("error", r.Err.Error())
	}
	return nil
}

type steps []Step

func (s steps) MarshalLogArray(e zapcore.ArrayEncoder) error {
	for i := range s {
		if err := e.AppendObject(&s[i]); err != nil {
			return err
		}
	}
	return nil
}

// MarshalLogObject writes one element of steps[].
func (s *Step) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("check", s.Check)
	e.AddString("verdict", s.Verdict)
	if s.Reason != "" {
		e.AddString("reason", string(s.Reason))
	}
	if s.Mode != "" {
		e.AddString("mode", s.Mode)
	}
	if s.Detail != "" {
		e.AddString("detail", s.Detail)
	}
	if s.Duration > 0 {
		e.AddFloat64("duration_ms", milliseconds(s.Duration))
	}
	if s.Err != nil {
		e.AddString("error", s.Err.Error())
	}
	return nil
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}
