package policyd

import (
	"context"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

func ownershipCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{
		api.OwnersCheck:  command(c, checks.OwnershipName, (*ownershipPart).ownersCheck),
		api.OwnersReload: command(c, checks.OwnershipName, (*ownershipPart).ownersReload),
		api.OwnersList:   command(c, checks.OwnershipName, (*ownershipPart).ownersList),
	}
}

func (o *ownershipPart) ownersCheck(ctx context.Context, args api.OwnersCheckArgs, _ func(any)) (any, error) {
	if args.Login == "" {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: "no login given"}
	}
	v, ruling, err := o.check.Judge(ctx, mailaddr.Parse(args.Sender), args.Login)
	if err != nil {
		return nil, err
	}
	answer := &ruling.Answer
	result := api.OwnersCheckResult{
		Allowed: v.Kind == policy.Pass,
		Verdict: v.Kind.String(),
		Reason:  string(v.Reason),
		Reply:   v.Text,
		Map:     answer.Path.Table,
		Key:     answer.Path.Key,
		Entry:   answer.Path.Entry,
		Where:   answer.Path.Where(),
		Via:     answer.Path.Via,
		Owners:  answer.Owners,
		Shadow:  o.shadow,
	}
	if ruling.Changed {
		result.Queued = ruling.Sender.String()
	}
	return result, nil
}

// ownersReload asks for a reload, with force one that uses what is held back.
func (o *ownershipPart) ownersReload(_ context.Context, args api.OwnersReloadArgs, _ func(any)) (any, error) {
	result := api.OwnersReloadResult{Held: o.guard.Held()}
	if args.Force {
		result.Taken = o.guard.Take()
	}
	if o.reload != nil {
		o.reload("postern owners reload")
	}
	return result, nil
}
