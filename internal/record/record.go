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

// fields is what a record is written to. Empty texts and lists, and times of
// zero in a step, are left out before they get there.
type fields interface {
	text(key, value string)
	milliseconds(key string, d time.Duration)
	list(key string, s []Step)
}

// write gives the keys of r in their documented order.
func (r *Record) write(f fields) {
	text := func(key, value string) {
		if value != "" {
			f.text(key, value)
		}
	}
	text("daemon", r.Daemon)
	text("check", r.Check)
	text("verdict", r.Verdict)
	text("reason", string(r.Reason))
	text("action", r.Action)
	text("mode", r.Mode)
	text("peer", r.Peer)
	text("instance", r.Instance)
	text("queue_id", r.QueueID)
	text("client_address", r.ClientAddress)
	text("client_port", r.ClientPort)
	text("client_name", r.ClientName)
	text("helo", r.Helo)
	// The null sender is an answer, not an absence: it is written as "<>".
	text("sender", r.Sender)
	text("recipient", r.Recipient)
	text("sasl_username", r.SASLUsername)
	text("message_id", r.MessageID)
	text("from", r.From)
	text("spf", r.SPF)
	text("dkim", r.DKIM)
	text("arc", r.ARC)
	text("dmarc", r.DMARC)
	text("disposition", r.Disposition)
	text("signed_by", r.SignedBy)
	f.milliseconds("duration_ms", r.Duration)
	if len(r.Steps) > 0 {
		f.list("steps", r.Steps)
	}
	if r.Err != nil {
		f.text("error", r.Err.Error())
	}
}

// write gives the keys of one element of steps[].
func (s *Step) write(f fields) {
	text := func(key, value string) {
		if value != "" {
			f.text(key, value)
		}
	}
	f.text("check", s.Check)
	f.text("verdict", s.Verdict)
	text("reason", string(s.Reason))
	text("mode", s.Mode)
	text("detail", s.Detail)
	if s.Duration > 0 {
		f.milliseconds("duration_ms", s.Duration)
	}
	if s.Err != nil {
		f.text("error", s.Err.Error())
	}
}

// MarshalLogObject writes r through any of zap's encoders.
func (r *Record) MarshalLogObject(e zapcore.ObjectEncoder) error {
	r.write(zapFields{e})
	return nil
}

// MarshalLogObject writes one element of steps[].
func (s *Step) MarshalLogObject(e zapcore.ObjectEncoder) error {
	s.write(zapFields{e})
	return nil
}

type zapFields struct{ zapcore.ObjectEncoder }

func (f zapFields) text(key, value string)                   { f.AddString(key, value) }
func (f zapFields) milliseconds(key string, d time.Duration) { f.AddFloat64(key, milliseconds(d)) }

func (f zapFields) list(key string, s []Step) {
	_ = f.AddArray(key, zapSteps(s)) // zapSteps has no errors
}

type zapSteps []Step

func (s zapSteps) MarshalLogArray(e zapcore.ArrayEncoder) error {
	for i := range s {
		if err := e.AppendObject(&s[i]); err != nil {
			return err
		}
	}
	return nil
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}
