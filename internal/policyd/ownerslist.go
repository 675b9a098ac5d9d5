package policyd

import (
	"context"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership"
)

// maxCandidates is how many senders one owners.list may name.
const maxCandidates = 1000

// OwnersListArgs asks what a login owns ("owners.list").
type OwnersListArgs struct {
	Login string `json:"login"`
	// Senders are asked one by one, for tables that cannot be listed.
	Senders []string `json:"senders,omitempty"`
}

// OwnersListResult is what a login owns.
type OwnersListResult struct {
	Entries []OwnersListEntry `json:"entries"`
	// Unread are tables that can only be asked sender by sender.
	Unread    []string `json:"unread,omitempty"`
	Truncated bool     `json:"truncated,omitempty"`
}

// OwnersListEntry is a sender, a domain ("@domain") or a bare user.
type OwnersListEntry struct {
	Sender string   `json:"sender"`
	How    string   `json:"how"`
	Map    string   `json:"map,omitempty"`
	Entry  string   `json:"entry,omitempty"`
	Where  string   `json:"where,omitempty"` // path:line
	Via    []string `json:"via,omitempty"`   // aliases behind the sender
}

// ownersLister is what *ownership.Owners can beside deciding.
type ownersLister interface {
	List(ctx context.Context, login string) (ownership.Listing, error)
}

func (o *ownershipPart) ownersList(ctx context.Context, args OwnersListArgs, _ func(any)) (any, error) {
	lister, ok := o.check.Rules.Owners.(ownersLister)
	if !ok || args.Login == "" || len(args.Senders) > maxCandidates {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: "give one login and at most 1000 senders"}
	}
	listing, err := lister.List(ctx, args.Login)
	if err != nil {
		return nil, err
	}
	result := OwnersListResult{Entries: []OwnersListEntry{}, Truncated: listing.Truncated}
	for _, e := range listing.Entries {
		result.add(e.Path.Key, e.How, e.Path, e.Path.Via)
	}
	for _, table := range listing.Unread {
		result.Unread = append(result.Unread, table.Spec)
	}
	for _, sender := range args.Senders {
		_, ruling, err := o.check.Judge(ctx, mailaddr.Parse(sender), args.Login)
		if err != nil {
			return nil, err
		}
		if answer := &ruling.Answer; answer.Owned { // what merely passes, as the null sender, is nobody's
			result.add(sender, answer.How, answer.Path, answer.Path.Behind())
		}
	}
	return result, nil
}

func (r *OwnersListResult) add(sender string, how ownership.How, p ownership.Path, via []string) {
	r.Entries = append(r.Entries, OwnersListEntry{Sender: sender, How: string(how), Map: p.Table, Entry: p.Entry, Where: p.Where(), Via: via})
}
