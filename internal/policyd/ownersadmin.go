package policyd

import (
	"context"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// OwnersCheckArgs asks whether a login may use a sender ("owners.check").
type OwnersCheckArgs struct {
	Sender string `json:"sender"` // external form, as in MAIL FROM
	Login  string `json:"login"`
}

// OwnersCheckResult is the verdict of the running daemon and the entry that it
// rests on.
type OwnersCheckResult struct {
	Allowed bool     `json:"allowed"`
	Verdict string   `json:"verdict"` // as in the record
	Reason  string   `json:"reason"`
	Reply   string   `json:"reply,omitempty"`  // what the client would read
	Queued  string   `json:"queued,omitempty"` // the sender as Postfix will queue it, if that differs
	Map     string   `json:"map,omitempty"`
	Key     string   `json:"key,omitempty"`
	Entry   string   `json:"entry,omitempty"`
	Where   string   `json:"where,omitempty"` // path:line
	Via     []string `json:"via,omitempty"`   // aliases between the sender and Key
	Owners  []string `json:"owners,omitempty"`
	Shadow  bool     `json:"shadow,omitempty"` // the check only watches
}

func ownershipCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{
		"owners.check": command(c, checks.OwnershipName, (*ownershipPart).ownersCheck),
		"owners.list":  command(c, checks.OwnershipName, (*ownershipPart).ownersList),
	}
}

func (o *ownershipPart) ownersCheck(ctx context.Context, args OwnersCheckArgs, _ func(any)) (any, error) {
	if args.Login == "" {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: "no login given"}
	}
	v, ruling, err := o.check.Judge(ctx, mailaddr.Parse(args.Sender), args.Login)
	if err != nil {
		return nil, err
	}
	answer := &ruling.Answer
	result := OwnersCheckResult{
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
