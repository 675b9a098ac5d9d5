// Package checks holds the checks that postern-policyd asks, one in a file.
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

// Owners tells who owns a sender; *ownership.Owners does.
type Owners interface {
	Check(ctx context.Context, sender mailaddr.Address, login string) (ownership.Answer, error)
}

// Ownership decides whether a login may use an envelope sender. Its zero
// settings are those of reject_authenticated_sender_login_mismatch: a sender
// that is listed for others, or nowhere, is refused; clients that have not
// logged in are none of its business.
type Ownership struct {
	Owners Owners
	// UnlistedPass lets logins use senders that no map lists, as
	// reject_known_sender_login_mismatch does.
	UnlistedPass bool
	// UnauthenticatedReject refuses a listed sender to clients that have not
	// logged in, as reject_unauthenticated_sender_login_mismatch does. It
	// breaks forwarders and mailing lists.
	UnauthenticatedReject bool
	// NullSenderReject refuses the null sender to logins. Mail programs need
	// it for disposition notifications (RFC 8098 section 3), stolen accounts
	// abuse it.
	NullSenderReject bool
	// Exempt are logins that may use any sender, folded by mailaddr.Fold.
	Exempt map[string]bool
}

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

// Judge gives the verdict on a sender and a login ("" for none), and the answer
// of the maps that it rests on, if they were asked.
func (o *Ownership) Judge(ctx context.Context, sender mailaddr.Address, login string) (policy.Verdict, ownership.Answer, error) {
	var none ownership.Answer
	switch {
	case len(o.Exempt) > 0 && login != "" && o.Exempt[mailaddr.Fold(login)]:
		return pass(record.OwnerExempt), none, nil
	case sender.IsNull():
		return o.judgeNull(login), none, nil
	case login == "" && !o.UnauthenticatedReject:
		return policy.Verdict{Reason: record.OwnerUnauthenticated}, none, nil
	}
	answer, err := o.Owners.Check(ctx, sender, login)
	if err != nil && !answer.Owned {
		return policy.Verdict{Reason: record.OwnerLookupFailed}, answer, err
	}
	v := o.judge(sender, login, &answer)
	v.Detail = detail(&answer)
	return v, answer, nil
}

func (o *Ownership) judgeNull(login string) policy.Verdict {
	switch {
	case login == "":
		return policy.Verdict{Reason: record.OwnerUnauthenticated}
	case o.NullSenderReject:
		return refuse(record.OwnerNullSender, "null sender not allowed for user "+login)
	}
	return pass(record.OwnerNullSender)
}

func (o *Ownership) judge(sender mailaddr.Address, login string, a *ownership.Answer) policy.Verdict {
	switch {
	case a.Owned:
		return pass(ownedReason(a.How))
	case login == "" && a.Listed:
		return refuse(record.OwnerNotLoggedIn, "not logged in")
	case login == "":
		return policy.Verdict{Reason: record.OwnerUnauthenticated}
	case a.Listed:
		return refuse(record.OwnerNotOwned, "not owned by user "+login)
	case o.UnlistedPass:
		return pass(record.OwnerUnlisted)
	case !sender.IsValid():
		return refuse(record.OwnerSenderNotAddress, "not owned by user "+login)
	}
	return refuse(record.OwnerUnlisted, "not owned by user "+login)
}

func ownedReason(how ownership.How) record.Reason {
	switch how {
	case ownership.BySelf:
		return record.OwnerSelf
	case ownership.ByAlias:
		return record.OwnerOwnedByAlias
	}
	return record.OwnerOwned
}

func pass(reason record.Reason) policy.Verdict {
	return policy.Verdict{Kind: policy.Pass, Reason: reason}
}

// refuse spells the reply as Postfix does for its own login mismatch checks;
// Postfix puts "<sender>: Sender address rejected: " in front.
func refuse(reason record.Reason, text string) policy.Verdict {
	return policy.Verdict{Kind: policy.Reject, Reason: reason, Code: policy.CodeSenderPolicy, Text: text}
}

// detail names the entry that decided, for the record, and the aliases that led
// to it.
func detail(a *ownership.Answer) string {
	if a.Path.Table == "" {
		return ""
	}
	var room [usualDetail]byte
	b := append(room[:0], "map="...)
	b = append(b, a.Path.Table...)
	b = append(b, " key="...)
	b = append(b, a.Path.Key...)
	if where := a.Path.Where(); where != "" {
		b = append(b, " at="...)
		b = append(b, where...)
	}
	if len(a.Path.Via) > 0 {
		b = appendList(append(b, " via="...), a.Path.Via)
	}
	if !a.Owned {
		b = appendList(append(b, " owners="...), a.Owners)
	}
	return string(b)
}

// usualDetail is room for most details without an allocation.
const usualDetail = 256

func appendList(b []byte, words []string) []byte {
	for i, word := range words {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, word...)
	}
	return b
}
