package policyd

import (
	"context"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership"
)

// maxCandidates is how many senders one owners.list may name.
const maxCandidates = 1000

// ownersLister is the part of *ownership.Owners that lists senders.
type ownersLister interface {
	List(ctx context.Context, login string) (ownership.Listing, error)
}

func (o *ownershipPart) ownersList(ctx context.Context, args api.OwnersListArgs, _ func(any)) (any, error) {
	lister, ok := o.check.Rules.Owners.(ownersLister)
	if !ok || args.Login == "" || len(args.Senders) > maxCandidates {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: "give one login and at most 1000 senders"}
	}
	listing, err := lister.List(ctx, args.Login)
	if err != nil {
		return nil, err
	}
	result := api.OwnersListResult{Entries: []api.OwnersListEntry{}, Truncated: listing.Truncated}
	for _, e := range listing.Entries {
		result.Entries = append(result.Entries, listedSender(e.Path.Key, e.How, e.Path, e.Path.Via))
	}
	for _, table := range listing.Unread {
		result.Unread = append(result.Unread, table.Spec)
	}
	for _, sender := range args.Senders {
		_, ruling, err := o.check.Judge(ctx, mailaddr.Parse(sender), args.Login)
		if err != nil {
			return nil, err
		}
		if answer := &ruling.Answer; answer.Owned { // a sender that only passes, as the null sender, has no owner
			result.Entries = append(result.Entries, listedSender(sender, answer.How, answer.Path, answer.Path.Behind()))
		}
	}
	return result, nil
}

func listedSender(sender string, how ownership.How, p ownership.Path, via []string) api.OwnersListEntry {
	return api.OwnersListEntry{Sender: sender, How: string(how), Map: p.Table, Entry: p.Entry, Where: p.Where(), Via: via}
}
