package milter

import (
	"context"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/milter/mark"
	"github.com/postern-mail/postern/milter/verify"
)

// NewVerifying returns the handler of the verify role: v judges every message,
// removes the results that others wrote in our name, and writes ours.
func NewVerifying(v *verify.Verifier) Handler { return verifying{v} }

type verifying struct{ verifier *verify.Verifier }

// Begin starts the checks that need the envelope only.
func (v verifying) Begin(ctx context.Context, s *Session, m *Message) (Work, Answer, error) {
	mail := v.verifier.Start(ctx, verify.Envelope{
		Client: s.Client, Helo: s.Helo, Sender: m.Sender, MTA: s.MTA, Authenticated: m.Authenticated(),
	})
	return &verifyingWork{message: m, mail: mail}, Answer{}, nil
}

// verifyingWork is one message being verified. It is accepted at the last stage only,
// because before that forged results cannot be removed from the header.
type verifyingWork struct {
	message *Message
	mail    *verify.Mail
}

var _ Gate = (*verifyingWork)(nil)

// Recipient refuses the recipients of a message whose sender is refused.
func (w *verifyingWork) Recipient(ctx context.Context, _ mailaddr.Address) (Answer, error) {
	if r := w.mail.Refused(ctx); r != nil {
		return refusal(r), nil
	}
	return Answer{}, nil
}

func refusal(r *verify.Refusal) Answer {
	return Answer{
		Verdict: Reject,
		Reply:   Reply{Code: r.Code, Status: r.Status, Text: r.Text},
		Reason:  r.Reason,
		Details: Details{SPF: r.SPF},
	}
}

// Headers passes the header to the verifier.
func (w *verifyingWork) Headers(context.Context) (Answer, error) {
	if r := w.mail.Header(w.message.Header); r != nil {
		return refusal(r), nil
	}
	return Answer{}, nil
}

// Body hashes a chunk.
func (w *verifyingWork) Body(chunk []byte) error {
	_, err := w.mail.Write(chunk)
	return err
}

// Finish returns the result. It never returns an error, because then the changes to
// the header would be lost, and they have to be made in any case.
func (w *verifyingWork) Finish(ctx context.Context) (Decision, error) {
	r := w.mail.Finish(ctx)
	var d Decision
	if r.Refusal != nil {
		d.Answer = refusal(r.Refusal)
	}
	d.Reason = r.Reason
	d.Failed = r.Err
	d.Quarantine = r.Quarantine
	d.Details.Steps = r.Steps
	if r.Shadowed {
		d.Details.Would = &Would{Accept, r.Would}
		if r.WouldRefuse {
			d.Details.Would.Verdict = Reject
		}
	}
	if f := r.Findings; f != nil {
		d.Details.From = f.From()
		d.Details.SPF = string(f.MailFrom.Status)
		d.Details.DKIM = string(f.DKIM.Status())
		d.Details.ARC = string(f.ARC.Status)
		d.Details.DMARC = string(f.DMARC.Verdict.Status)
		d.Details.Disposition = string(f.Disposition.Done())
	}
	if k := r.Kept; k != nil {
		d.Details.DMARC, d.Details.Disposition = k.DMARC, string(verify.ActionNone)
		if k.Done != mark.Delivered {
			d.Details.Disposition = string(verify.ActionQuarantine)
		}
	}
	for _, p := range r.Remove {
		d.Delete = append(d.Delete, Position(p))
	}
	for _, f := range r.Fields {
		d.Insert = append(d.Insert, Insertion{Index: 0, Name: f.Name, Value: f.Value})
	}
	return d, nil
}

// Close ends the checks that were started.
func (w *verifyingWork) Close() { w.mail.Close() }
