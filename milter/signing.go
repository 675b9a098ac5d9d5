package milter

import (
	"context"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/mark"
	"github.com/postern-mail/postern/milter/sign"
)

// NewSigning returns the handler of the sign role. It lets every message pass and
// puts the signatures of s at the top. Mail with a mark of one of the keys came from
// outside. It is signed only if its author was proven.
func NewSigning(s *sign.Signer, marks *mark.Keys) Handler { return signing{s, marks} }

type signing struct {
	signer *sign.Signer
	marks  *mark.Keys
}

// Begin starts nothing: the header has to say who the author is.
func (s signing) Begin(_ context.Context, _ *Session, m *Message) (Work, Answer, error) {
	return &signingWork{signing: s, message: m}, Answer{}, nil
}

// signingWork is one message being signed.
type signingWork struct {
	signing
	message *Message
	mail    *sign.Message // nil before the header and after the end
}

// Headers settles a message that will not be signed: its body is not needed.
func (w *signingWork) Headers(ctx context.Context) (Answer, error) {
	if v := w.unproven(); v != nil {
		return Answer{Verdict: Accept, Reason: record.SignMarked, Details: Details{DMARC: v.DMARC}}, nil
	}
	w.mail = w.signer.Message(ctx, w.message.Header)
	if _, ok := w.message.Param("SMTPUTF8"); ok {
		w.mail.UTF8()
	}
	if w.mail.NeedsBody() {
		return Answer{}, nil
	}
	r := w.mail.Close()
	w.mail = nil
	answer := decide(&r)
	if r.Unavailable {
		return answer.Answer, r.Err
	}
	answer.Verdict = Accept
	return answer.Answer, nil
}

// unproven returns the mark of a mail that came from outside and must not get our
// signature: Sieve or a user forwards what a stranger sent. Mail that failed is never
// signed, whatever its From is now. Mail without a clear verdict is signed only if
// its From now has another local part: then a mailing list of ours has rewritten it.
// The same local part is no proof, because cleanup(8) completes "ceo" and "ceo@host"
// with our own domain.
func (w *signingWork) unproven() *mark.Sealed {
	header := func(yield func(name, value string) bool) {
		for _, f := range w.message.Header {
			if !yield(f.Name, f.Value) {
				return
			}
		}
	}
	sealed, _ := w.marks.Find(header, time.Now())
	if sealed == nil || sealed.Passed() {
		return nil
	}
	if sealed.Forged() {
		return sealed
	}
	if now := author.ParseFrom(header); !sealed.Completed(mark.HashOfLocals(&now)) {
		return nil
	}
	return sealed
}

// Body hashes a chunk.
func (w *signingWork) Body(chunk []byte) error {
	_, err := w.mail.Write(chunk)
	return err
}

// Finish signs.
func (w *signingWork) Finish(context.Context) (Decision, error) {
	return w.end(), nil
}

// Close aborts a message that did not come to its end.
func (w *signingWork) Close() {
	if w.mail != nil {
		w.mail.Abort()
	}
}

// end closes the signer's message and returns the decision.
func (w *signingWork) end() Decision {
	r := w.mail.Close()
	w.mail = nil
	return decide(&r)
}

// decide turns the signer's result into a decision. A key that could not sign is an
// error in the record, but the mail is delivered.
func decide(r *sign.Outcome) Decision {
	d := Decision{Answer: Answer{Reason: r.Reason, Err: r.Err}}
	d.Details.From = r.Domain
	d.Details.SignedBy = strings.Join(r.SignedBy, ",")
	for _, note := range r.Notes {
		d.Details.Steps = append(d.Details.Steps, record.Step{Check: "sign", Verdict: "none", Detail: note})
	}
	for _, f := range r.Fields {
		d.Insert = append(d.Insert, Insertion{Index: 0, Name: f.Name, Value: f.Value})
	}
	return d
}
