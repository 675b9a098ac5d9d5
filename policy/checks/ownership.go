// Package checks contains the checks of postern-policyd, one in a file.
package checks

import (
	"context"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
)

// OwnershipName is the check's name in settings, records and metrics.
const OwnershipName = "ownership"

// Ownership asks the judge whether a login may use an envelope sender.
type Ownership struct{ Rules *ownership.Judge }

// Name implements policy.Check.
func (*Ownership) Name() string { return OwnershipName }

// Check implements policy.Check.
func (o *Ownership) Check(ctx context.Context, r *policy.Request, _ policy.Signals) (policy.Verdict, error) {
	if !r.State.HasSender() {
		return policy.Verdict{Reason: record.NotApplicable}, nil
	}
	v, _, err := o.Judge(ctx, r.Sender, r.Login)
	return v, err
}

// Judge returns the verdict on a sender and a login ("" for none), with its
// ruling.
func (o *Ownership) Judge(ctx context.Context, sender mailaddr.Address, login string) (policy.Verdict, ownership.Ruling, error) {
	ruling, err := o.Rules.Decide(ctx, sender, login)
	if err != nil {
		return policy.Verdict{Reason: ruling.Reason}, ruling, err
	}
	v := policy.Verdict{Reason: ruling.Reason, Detail: ruling.Detail()}
	switch ruling.Kind {
	case ownership.Allowed:
		v.Kind = policy.Pass
	case ownership.Refused:
		// The reply is the same as for Postfix's own login mismatch checks.
		// Postfix puts "<sender>: Sender address rejected: " before it.
		v.Kind, v.Code, v.Text = policy.Reject, policy.CodeSenderPolicy, ruling.Text
	}
	return v, ruling, nil
}
