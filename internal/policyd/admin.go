package policyd

import (
	"context"
	"maps"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/policy"
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
	Reply   string   `json:"reply,omitempty"` // what the client would read
	Map     string   `json:"map,omitempty"`
	Key     string   `json:"key,omitempty"`
	Entry   string   `json:"entry,omitempty"`
	Where   string   `json:"where,omitempty"` // path:line
	Via     []string `json:"via,omitempty"`   // aliases between the sender and Key
	Owners  []string `json:"owners,omitempty"`
	Shadow  bool     `json:"shadow,omitempty"` // the check only watches
}

// commands are what the postern command may ask of this daemon.
func (a *app) commands() map[string]admin.Handler {
	commands := map[string]admin.Handler{
		"owners.check":   admin.Typed(a.ownersCheck),
		"owners.list":    admin.Typed(a.ownersList),
		"dnsbl.check":    admin.Typed(a.dnsblCheck),
		"dnsbl.selftest": admin.Typed(a.dnsblSelfTest),
	}
	maps.Copy(commands, a.greylistCommands())
	return commands
}

func (a *app) ownersCheck(ctx context.Context, args OwnersCheckArgs, _ func(any)) (any, error) {
	s := a.current.acquire()
	defer s.done()
	if s.ownership == nil {
		return nil, &admin.Error{Code: admin.CodeFailed, Message: "the ownership check does not run: add ownership to checks"}
	}
	if args.Login == "" {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: "no login given"}
	}
	v, answer, err := s.ownership.Judge(ctx, mailaddr.Parse(args.Sender), args.Login)
	if err != nil {
		return nil, err
	}
	return OwnersCheckResult{
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
		Shadow:  s.settings.shadowed(s.ownership.Name()),
	}, nil
}
