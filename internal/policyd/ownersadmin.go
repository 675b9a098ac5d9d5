package policyd

import (
	"context"
	"fmt"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

func ownershipCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{
		api.OwnersCheck: command(c, checks.OwnershipName, (*ownershipPart).ownersCheck),
		api.OwnersList:  command(c, checks.OwnershipName, (*ownershipPart).ownersList),
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

// advise implements adviser.
func (o *ownershipPart) advise(ctx context.Context, r *policy.Request, step *policy.Step) []string {
	if step.Err != nil {
		return []string{"the tables of --owners must answer (the error says which one does not), or --owners-on-error=pass"}
	}
	_, ruling, err := o.check.Judge(ctx, r.Sender, r.Login)
	if err != nil {
		return nil
	}
	exempt := fmt.Sprintf("--owner-exempt=%s would let this login use any sender", r.Login)
	switch path := ruling.Answer.Path; {
	case ruling.Answer.Listed && r.Login == "":
		return []string{"a client that logs in as an owner may use this sender", "--owners-unauthenticated=pass would pass it"}
	case ruling.Answer.Listed:
		where := path.Table
		if at := path.Where(); at != "" {
			where = at
		}
		return []string{fmt.Sprintf("%s among the owners of %s at %s would pass it", r.Login, path.Key, where), exempt}
	case ruling.Sender.IsNull():
		return []string{"--null-sender=pass would pass it", exempt}
	case ruling.Unclear != nil || !ruling.Sender.IsValid():
		return []string{"a sender of the form user@domain", exempt}
	}
	return []string{fmt.Sprintf("an entry \"%s %s\" in a table of --owners would pass it", ruling.Sender.String(), r.Login), "--owners-unlisted=pass would pass every sender that no table lists", exempt}
}
