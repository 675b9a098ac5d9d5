package verify

import (
	"slices"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/authres"
	"github.com/postern-mail/postern/milter/mark"
)

// Result is what becomes of a message.
type Result struct {
	Findings *Findings    // nil when verification itself failed, and with Kept
	Kept     *mark.Sealed // the verdict of an earlier pass, when it is kept
	Refusal  *Refusal     // nil to deliver
	// Quarantine is the reason to put the message into the hold queue, "" not to.
	Quarantine string
	Remove     []Position
	Fields     []Field // for the top of the header, in this order; folds are LF
	Reason     record.Reason
	// Shadowed is set when a check in shadow mode would have acted, and nothing else
	// is done. Would is the reason.
	Shadowed    bool
	Would       record.Reason
	WouldRefuse bool
	Steps       []record.Step
	Err         error
}

// result decides what becomes of the message.
func (m *Mail) result(f *Findings) Result {
	o := &m.verifier.options
	r := Result{Findings: f, Fields: m.fields(f), Reason: record.Verified, Steps: f.steps(o)}
	if f.unsure() {
		r.Reason = record.VerifyUnsure
	}
	if reason := f.Disposition.reason(); reason != "" {
		if f.Disposition.Shadow {
			r.watch(reason, f.Disposition.refuses())
		} else {
			r.carryOut(reason)
		}
	}
	if refusal := f.refuseSPF(o); refusal != nil {
		switch {
		case o.SPFShadow:
			r.watch(refusal.Reason, !f.Envelope.Relayed)
		case f.Envelope.Relayed:
			r.mark(refusal.Reason)
		default:
			r.Refusal, r.Reason, r.Shadowed = refusal, refusal.Reason, false
		}
	}
	m.seal(&r, f)
	m.tidy(&r)
	return r
}

// watch records what would have been done in shadow mode, unless something is done. A
// refusal by SPF comes before DMARC.
func (r *Result) watch(reason record.Reason, refuse bool) {
	if r.Reason == record.Verified || r.Reason == record.VerifyUnsure {
		r.Shadowed, r.Would, r.WouldRefuse = true, reason, refuse
	}
}

// tidy removes the fields that claim to be ours, except a mark that is not replaced
// by a new one.
func (m *Mail) tidy(r *Result) {
	sealed := slices.ContainsFunc(r.Fields, func(f Field) bool { return f.Name == mark.Field })
	r.Remove = m.before.remove(keep{mark: !sealed})
	if m.before.stays(r.Remove) {
		r.Fields = slices.DeleteFunc(r.Fields, func(f Field) bool { return f.Name == QuarantineField })
	}
	if m.before.sealed != nil {
		r.Steps = append(r.Steps, m.before.step())
	}
}

// mark adds the field that says quarantine.
func (r *Result) mark(reason record.Reason) {
	r.Reason, r.Shadowed = reason, false
	if !slices.ContainsFunc(r.Fields, func(f Field) bool { return f.Name == QuarantineField }) {
		r.Fields = append(r.Fields, Field{Name: QuarantineField, Value: " " + quarantineValue})
	}
}

// carryOut applies the disposition to the result.
func (r *Result) carryOut(reason record.Reason) {
	f := r.Findings
	r.Reason = reason
	switch {
	case f.Disposition.refuses():
		r.Refusal = refuseDMARC(f)
	case f.Disposition.How == Hold:
		r.Quarantine = holdReason + f.authorText()
	default:
		r.mark(reason)
	}
}

// unverified returns the result when a defect of ours prevented a judgement. Readers
// must still not see results that claim to be ours.
func (m *Mail) unverified(err error) Result {
	r := Result{
		Fields: []Field{{Name: resultsField, Value: " " + authres.Format(m.authservID)}},
		Reason: record.CheckFailed,
		Err:    err,
	}
	if m.before.quarantined() {
		r.mark(r.Reason)
	}
	m.tidy(&r)
	return r
}
