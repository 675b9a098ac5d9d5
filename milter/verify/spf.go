package verify

import (
	"context"
	"errors"

	"github.com/postern-mail/postern/internal/spf"
)

// errAnonymous is the reason for the SPF result "none" when the client cannot be
// judged, for example because a content filter hands the mail back.
var errAnonymous = errors.New("the client's address does not say who sends")

// checkMailFrom checks the reverse path. With a null sender that is the HELO name.
func (v *Verifier) checkMailFrom(ctx context.Context, r Resolver, args spf.Args) spf.MailFromResult {
	if anonymous(args.IP) {
		return spf.MailFromResult{Result: spf.Result{Status: spf.None, Err: errAnonymous}, NullSender: args.Sender == spf.Sender{}}
	}
	return spf.CheckMailFrom(ctx, r, v.traced(args, IdentityMailFrom))
}

// checkHelo checks the HELO name, unless checkMailFrom does that. A result without a
// status means that it was not checked.
func (v *Verifier) checkHelo(ctx context.Context, r Resolver, args spf.Args) spf.HeloResult {
	if anonymous(args.IP) || args.Sender == (spf.Sender{}) {
		return spf.HeloResult{}
	}
	args.NoExplanation = true // no mail is refused because of it
	return spf.CheckHelo(ctx, r, v.traced(args, IdentityHelo))
}

func (v *Verifier) traced(args spf.Args, identity string) spf.Args {
	if trace := v.options.Trace; trace != nil {
		args.Trace = func(e spf.Event) { trace(identity, e) }
	}
	return args
}
