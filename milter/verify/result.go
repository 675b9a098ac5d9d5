package verify

import (
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/milter/authres"
)

// Result is what becomes of a message.
type Result struct {
	Findings *Findings // nil when verification itself failed
	Refusal  *Refusal  // nil to deliver
	Remove   []Position
	Fields   []Field // for the top of the header, in this order; folds are LF
	Reason   record.Reason
	Steps    []record.Step
	Err      error
}

// result decides.
func (m *Mail) result(f *Findings) Result {
	r := Result{
		Findings: f,
		Refusal:  refuse(&m.verifier.options, f.Envelope, f.MailFrom),
		Remove:   m.forged,
		Fields:   m.fields(f),
		Reason:   record.Verified,
		Steps:    f.steps(),
	}
	switch {
	case r.Refusal != nil:
		r.Reason = r.Refusal.Reason
	case f.unsure():
		r.Reason = record.VerifyUnsure
	}
	return r
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

// From is the domain of the author for records; several are separated by commas.
func (f *Findings) From() string { return strings.Join(f.Author.Domains, ",") }

// steps tells the record what each result rests on.
func (f *Findings) steps() []record.Step {
	list := []record.Step{spfStep(IdentityMailFrom, f.MailFrom.Result)}
	if f.Helo.Status != "" {
		list = append(list, spfStep(IdentityHelo, f.Helo.Result))
	}
	for i := range f.DKIM.Signatures {
		list = append(list, dkimStep(&f.DKIM.Signatures[i]))
	}
	if n := f.DKIM.Skipped; n > 0 {
		list = append(list, record.Step{Check: "dkim", Verdict: "none", Detail: strconv.Itoa(n) + " more signatures were not looked at"})
	}
	if f.IPRev.Value != "" {
		list = append(list, record.Step{Check: "iprev", Verdict: string(f.IPRev.Value), Detail: f.IPRev.Name, Err: f.IPRev.Err})
	}
	return list
}

// maxDetail bounds what a record shows of values that strangers chose, in bytes.
const maxDetail = 400

func clip(s string) string { return s[:min(len(s), maxDetail)] }

func spfStep(identity string, r spf.Result) record.Step {
	detail := identity + " " + r.Domain
	if r.Mechanism != "" {
		detail += ": " + matched(r)
	}
	return record.Step{Check: "spf", Verdict: string(r.Status), Detail: clip(strings.TrimSpace(detail)), Err: r.Err}
}

func dkimStep(s *dkim.Signature) record.Step {
	detail := clip(s.Domain) + "/" + clip(s.Selector)
	if s.Reason != "" {
		detail += ": " + s.Reason
	}
	return record.Step{Check: "dkim", Verdict: string(s.Status), Detail: clip(detail), Err: s.Err}
}
