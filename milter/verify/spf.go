package verify

import (
	"context"
	"errors"

	"github.com/postern-mail/postern/internal/spf"
)

// errAnonymous is the reason of SPF's "none" for a client that it cannot judge:
// mail that a content filter hands back, for instance.
var errAnonymous = errors.New("the client's address does not say who sends")

// checkMailFrom asks about the reverse path, which under a null sender is the
// HELO name.
func (v *Verifier) checkMailFrom(ctx context.Context, r Resolver, args spf.Args) spf.MailFromResult {
	if anonymous(args.IP) {
		return spf.MailFromResult{Result: spf.Result{Status: spf.None, Err: errAnonymous}, NullSender: args.Sender == spf.Sender{}}
	}
	return spf.CheckMailFrom(ctx, r, v.traced(args, IdentityMailFrom))
}

// checkHelo asks about the HELO name, unless that is what checkMailFrom does. A
// result without a status means that no one was asked.
func (v *Verifier) checkHelo(ctx context.Context, r Resolver, args spf.Args) spf.HeloResult {
	if anonymous(args.IP) || args.Sender == (spf.Sender{}) {
		return spf.HeloResult{}
	}
	args.NoExplanation = true // no one is refused because of it
	return spf.CheckHelo(ctx, r, v.traced(args, IdentityHelo))
}

func (v *Verifier) traced(args spf.Args, identity string) spf.Args {
	if trace := v.options.Trace; trace != nil {
		args.Trace = func(e spf.Event) { trace(identity, e) }
	}
	return args
}
