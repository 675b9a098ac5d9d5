package milter

import (
	"context"
	"strings"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/sign"
)

// NewSigning returns the handler of the sign role: it lets every message pass and
// puts the signatures of s at the top.
func NewSigning(s *sign.Signer) Handler { return signing{s} }

type signing struct{ signer *sign.Signer }

// Begin waits for the header, which says who the author is.
func (s signing) Begin(_ context.Context, _ *Session, m *Message) (Work, Answer, error) {
	return &signingWork{signer: s.signer, message: m}, Answer{}, nil
}

// signingWork is one message being signed.
type signingWork struct {
	signer  *sign.Signer
	message *Message
	mail    *sign.Message // nil before the header and after the end
}

// Headers settles a message that will not be signed: its body need not come.
func (w *signingWork) Headers(ctx context.Context) (Answer, error) {
	fields := make([]sign.Field, len(w.message.Header))
	for i, f := range w.message.Header {
		fields[i] = sign.Field(f)
	}
	w.mail = w.signer.Message(ctx, fields)
	if w.mail.NeedsBody() {
		return Answer{}, nil
	}
	answer := w.end()
	answer.Verdict = Accept
	return answer.Answer, nil
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

// Close gives up a message that did not come to its end.
func (w *signingWork) Close() {
	if w.mail != nil {
		w.mail.Abort()
	}
}

// end turns the signer's result into a decision. A key that could not sign is an
// error in the record, never a reason to keep the mail.
func (w *signingWork) end() Decision {
	r := w.mail.Close()
	w.mail = nil
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
