package milter

import (
	"context"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/mark"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/milter/verify"
)

// NewSigning returns the handler of the sign role. It lets every message pass and
// puts the signatures of s at the top. Mail with a mark of one of the keys came from
// outside. It is signed only if its author was proven. v, which may be nil, finds the
// results in our name that a login has written itself: they are removed.
func NewSigning(s *sign.Signer, marks *mark.Keys, v *verify.Verifier) Handler {
	return signing{s, marks, v}
}

type signing struct {
	signer   *sign.Signer
	marks    *mark.Keys
	verifier *verify.Verifier
}

// Begin starts nothing: the header has to say who the author is.
func (s signing) Begin(_ context.Context, peer *Session, m *Message) (Work, Answer, error) {
	return &signingWork{signing: s, mta: peer.MTA, message: m}, Answer{}, nil
}

// signingWork is one message being signed.
type signingWork struct {
	signing
	mta     string
	message *Message
	mail    *sign.Message // nil before the header and after the end, and if it is not signed
	claims  []verify.Position
	// unsigned is the answer at the end to a message that is not signed. failed is why, if
	// a table could not be asked.
	unsigned Answer
	failed   error
}

// Headers settles a message that will not be signed: its body is not needed. If results
// in our name have to be removed, it is settled at its end.
func (w *signingWork) Headers(ctx context.Context) (Answer, error) {
	if refused := w.findClaims(); refused != nil {
		return *refused, nil
	}
	if v := w.unproven(); v != nil {
		return w.leave(Answer{Reason: record.SignMarked, Details: Details{DMARC: v.DMARC}}), nil
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
	if r.Unavailable && len(w.claims) == 0 {
		return answer.Answer, r.Err
	}
	if r.Unavailable {
		w.failed = r.Err
	}
	return w.leave(answer.Answer), nil
}

// findClaims finds the results in our name in mail of a login. Other mail may have passed
// our milters before, and has our own.
func (w *signingWork) findClaims() *Answer {
	if w.verifier == nil || !w.message.Authenticated() {
		return nil
	}
	claims, tooMany := w.verifier.Claims(w.message.Header, w.mta)
	if tooMany != nil {
		a := refusal(tooMany)
		return &a
	}
	w.claims = claims
	return nil
}

// leave lets a message pass unsigned.
func (w *signingWork) leave(a Answer) Answer {
	if len(w.claims) == 0 {
		a.Verdict = Accept
		return a
	}
	w.unsigned = a
	return Answer{}
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
	if w.mail == nil {
		return nil
	}
	_, err := w.mail.Write(chunk)
	return err
}

// Finish signs, and removes results in our name.
func (w *signingWork) Finish(context.Context) (Decision, error) {
	d := Decision{Answer: w.unsigned, Failed: w.failed}
	if w.mail != nil {
		d = w.end()
	}
	for _, p := range w.claims {
		d.Delete = append(d.Delete, Position(p))
	}
	if len(w.claims) > 0 {
		d.Details.Steps = append(d.Details.Steps, record.Step{Check: "sign", Verdict: "none", Detail: claimsRemoved})
	}
	return d, nil
}

// claimsRemoved is the note in the record.
const claimsRemoved = "the login's own Authentication-Results in our name were removed"

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
