package verify

import (
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/authres"
)

// Result is what becomes of a message.
type Result struct {
	Findings *Findings // nil when verification itself failed
	Refusal  *Refusal  // nil to deliver
	// Quarantine is the reason to put the message into the hold queue, "" not to.
	Quarantine string
	Remove     []Position
	Fields     []Field // for the top of the header, in this order; folds are LF
	Reason     record.Reason
	// Shadowed says that something would have been done that is only watched.
	Shadowed bool
	Steps    []record.Step
	Err      error
}

// result decides.
func (m *Mail) result(f *Findings) Result {
	o := &m.verifier.options
	r := Result{Findings: f, Remove: m.forged, Fields: m.fields(f), Reason: record.Verified, Steps: f.steps(o)}
	if f.unsure() {
		r.Reason = record.VerifyUnsure
	}
	if reason := f.Disposition.reason(); reason != "" {
		if r.Shadowed = f.Disposition.Shadow; !r.Shadowed {
			r.carryOut(reason)
		}
	}
	if refusal := refuseSPF(o, f.Envelope, f.MailFrom); refusal != nil {
		if o.SPFShadow {
			r.Shadowed = true
		} else {
			r.Refusal, r.Reason = refusal, refusal.Reason
		}
	}
	return r
}

// carryOut does what the disposition says.
func (r *Result) carryOut(reason record.Reason) {
	f := r.Findings
	r.Reason = reason
	switch {
	case f.Disposition.refuses():
		r.Refusal = refuseDMARC(f)
	case f.Disposition.How == Hold:
		r.Quarantine = holdReason + f.authorText()
	default:
		r.Fields = append(r.Fields, Field{Name: QuarantineField, Value: " " + quarantineValue})
	}
}

// unverified is the result when a defect of ours kept us from judging. Readers
// must still not see results that claim to be ours.
func (m *Mail) unverified(err error) Result {
	return Result{
		Remove: m.forged,
		Fields: []Field{{Name: resultsField, Value: " " + authres.Format(m.authservID)}},
		Reason: record.CheckFailed,
		Err:    err,
	}
}
