// Package record has the record: the line that both daemons log for each
// decision.
//
// Keys are stable: operators build alerts on them and deploy/README.md documents
// them. A field that does not apply is left out of the line.
package record

import (
	"iter"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Message is the zap message of every decision line.
const Message = "decision"

// The modes. A check in the shadow is run and recorded, but does not decide: the
// record has what it would have decided.
const (
	ModeEnforce = "enforce"
	ModeShadow  = "shadow"
)

// Record is one decision. The zero value of a field leaves its key out.
type Record struct {
	Daemon        string // "policyd" or "milterd"
	Check         string // the check that decided; "" when all passed
	Verdict       string // pass, hold, reject, defer, error, none
	Reason        Reason
	Action        string // the answer to Postfix, as sent
	Mode          string // enforce, shadow, off
	Peer          string // the client, in records of a broken connection
	Instance      string
	QueueID       string
	ClientAddress string
	ClientPort    string
	ClientName    string
	Helo          string
	Sender        string
	Recipient     string
	SASLUsername  string
	MessageID     string // this and the fields up to SignedBy: milterd only
	Whose         string // the row of the table of whose mail
	From          string // author domain
	SPF           string
	DKIM          string
	ARC           string
	DMARC         string
	Disposition   string
	SignedBy      string        // domain/selector of each signature that was added
	Duration      time.Duration // from the last byte of the request to the reply
	Steps         []Step
	Err           error // internal error; never sent to the client
}

// Step is the result of one check, or of one stage of a milter.
type Step struct {
	Check   string
	Verdict string
	Reason  Reason
	Mode    string // "" means enforce
	Detail  string // what the verdict is based on, such as the table and key; never a secret
	Err     error
}

// Failed reports whether a check of policyd could not decide.
func (s *Step) Failed() bool { return s.Verdict == failed }

// LineWriter is a zap core that writes records directly. zap's entries and fields
// would cost more than the line itself.
type LineWriter interface {
	// WriteRecord writes the line that zap would write, with the time at.
	WriteRecord(level zapcore.Level, at time.Time, r *Record)
}

// Level returns the level of r's line: info, or warn when r has an error or a check
// could not decide, so that an operator who filters by level sees all problems.
func (r *Record) Level() zapcore.Level {
	if r.Err != nil {
		return zapcore.WarnLevel
	}
	for i := range r.Steps {
		if r.Steps[i].Failed() {
			return zapcore.WarnLevel
		}
	}
	return zapcore.InfoLevel
}

// Log writes r as one line.
func (r *Record) Log(l *zap.Logger) { r.LogAt(l, time.Now()) }

// LogAt is Log for a caller that has just read the clock.
func (r *Record) LogAt(l *zap.Logger, at time.Time) {
	level := r.Level()
	if w, ok := l.Core().(LineWriter); ok && l.Name() == "" {
		w.WriteRecord(level, at, r)
		return
	}
	l.Log(level, Message, zap.Inline(r))
}

// member is one key of a record and its text; without a text it is left out.
type member struct{ key, text string }

// texts returns the members of r that are texts, in their documented order.
func (r *Record) texts() [25]member {
	return [...]member{
		{"daemon", r.Daemon},
		{"check", r.Check},
		{"verdict", r.Verdict},
		{"reason", string(r.Reason)},
		{"action", r.Action},
		{"mode", r.Mode},
		{"peer", r.Peer},
		{"instance", r.Instance},
		{"queue_id", r.QueueID},
		{"client_address", r.ClientAddress},
		{"client_port", r.ClientPort},
		{"client_name", r.ClientName},
		{"helo", r.Helo},
		{"sender", r.Sender}, // the null sender is written as "<>"
		{"recipient", r.Recipient},
		{"sasl_username", r.SASLUsername},
		{"message_id", r.MessageID},
		{"whose", r.Whose},
		{"from", r.From},
		{"spf", r.SPF},
		{"dkim", r.DKIM},
		{"arc", r.ARC},
		{"dmarc", r.DMARC},
		{"disposition", r.Disposition},
		{"signed_by", r.SignedBy},
	}
}

// Texts yields the key and the text of each member of r that is a text, in their
// documented order. The text of a member that does not apply is empty.
func (r *Record) Texts() iter.Seq2[string, string] {
	return func(yield func(key, text string) bool) {
		for _, m := range r.texts() {
			if !yield(m.key, m.text) {
				return
			}
		}
	}
}

// texts returns the members of one element of steps[] that are texts.
func (s *Step) texts() [5]member {
	return [...]member{
		{"check", s.Check},
		{"verdict", s.Verdict},
		{"reason", string(s.Reason)},
		{"mode", s.Mode},
		{"detail", s.Detail},
	}
}

// The keys after the texts.
const (
	keyDuration = "duration_ms"
	keySteps    = "steps"
	keyError    = "error"
)

// MarshalLogObject writes r through any of zap's encoders.
func (r *Record) MarshalLogObject(e zapcore.ObjectEncoder) error {
	for _, m := range r.texts() {
		addText(e, m)
	}
	e.AddFloat64(keyDuration, milliseconds(r.Duration))
	if len(r.Steps) > 0 {
		if err := e.AddArray(keySteps, zapSteps(r.Steps)); err != nil {
			return err
		}
	}
	addError(e, r.Err)
	return nil
}

// MarshalLogObject writes one element of steps[].
func (s *Step) MarshalLogObject(e zapcore.ObjectEncoder) error {
	for _, m := range s.texts() {
		addText(e, m)
	}
	addError(e, s.Err)
	return nil
}

func addText(e zapcore.ObjectEncoder, m member) {
	if m.text != "" {
		e.AddString(m.key, m.text)
	}
}

func addError(e zapcore.ObjectEncoder, err error) {
	if err != nil {
		e.AddString(keyError, err.Error())
	}
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
