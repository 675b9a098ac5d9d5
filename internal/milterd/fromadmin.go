package milterd

import (
	"context"
	"io"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/milter"
)

func fromCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{
		api.OwnersHeader: command(c, (*fromPart).ownersHeader),
	}
}

// ownersHeader judges the fields of a mail as if a login had sent it.
func (o *fromPart) ownersHeader(ctx context.Context, args api.OwnersHeaderArgs, _ func(any)) (any, error) {
	switch {
	case o.check == nil:
		return nil, &admin.Error{Code: admin.CodeFailed, Message: "From ownership is off: set --from-ownership shadow or enforce, and --owners"}
	case args.Login == "":
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: "no login given"}
	}
	fields := make([]milter.Field, len(args.Fields))
	for i, f := range args.Fields {
		fields[i] = milter.Field(f)
	}
	r, err := o.check.Owners.Decide(ctx, args.Login, mailaddr.Parse(args.Sender), fields)
	if err != nil {
		return nil, err
	}
	answer := &r.Ruling.Answer
	result := api.OwnersHeaderResult{
		Allowed: !r.Refused, Reason: string(r.Reason), Reply: r.Text, Field: r.Field, Address: r.Address, Display: r.Display,
		Map: answer.Path.Table, Key: answer.Path.Key, Where: answer.Path.Where(), Via: answer.Path.Via, Owners: answer.Owners, Shadow: o.check.Shadow,
	}
	if r.Problem != nil {
		result.Problem = r.Problem.Error()
	}
	return result, nil
}

// NamingFields reads a message and returns the header fields that name its authors,
// senders and resenders.
func NamingFields(message io.Reader) ([]api.ExplainedField, error) {
	fields, _, err := readMessage(message)
	if err != nil {
		return nil, err
	}
	naming := []api.ExplainedField{}
	for _, f := range fields {
		if milter.IsFromField(f.Name) {
			naming = append(naming, api.ExplainedField(f))
		}
	}
	return naming, nil
}
