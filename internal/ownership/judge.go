package ownership

import (
	"context"
	"errors"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
)

// Asker reports whether a login owns a sender; [*Owners] is one.
type Asker interface {
	Check(ctx context.Context, sender mailaddr.Address, login string) (Answer, error)
}

// Judge decides whether a login may use a sender, from the tables and the
// administrator's rules. The zero rules are those of
// reject_authenticated_sender_login_mismatch: a sender that is listed for
// others, or not at all, is refused. Clients that have not logged in are not
// judged.
//
// It judges the sender as Postfix will queue it. If the local part leads to
// another address, the login must own both.
type Judge struct {
	Owners Asker
	// Rewriting is how Postfix completes a sender. If nil, senders are not
	// changed.
	Rewriting *mailaddr.Rewriting
	// UnlistedPass lets logins use senders that no table lists, as
	// reject_known_sender_login_mismatch does.
	UnlistedPass bool
	// UnauthenticatedReject refuses a listed sender to clients that have not
	// logged in, as reject_unauthenticated_sender_login_mismatch does. It
	// breaks forwarders and mailing lists.
	UnauthenticatedReject bool
	// NullSenderReject refuses the null sender to logins. Mail programs need
	// the null sender for disposition notifications (RFC 8098 section 3), but
	// stolen accounts abuse it.
	NullSenderReject bool
	// Exempt are logins that may use any sender.
	Exempt Logins
}

// Logins is a set of logins.
type Logins struct {
	set    map[string]bool // in the form used to compare
	domain string          // the domain of logins without one
}

// NewLogins makes a set of logins. domain is the domain of logins without one;
// "" leaves them without.
func NewLogins(logins []string, domain string) Logins {
	l := Logins{set: make(map[string]bool, len(logins)), domain: domain}
	for _, login := range logins {
		l.set[short(mailaddr.FoldKey(login), domain)] = true
	}
	return l
}

// Has reports whether the set has a login.
func (l Logins) Has(login string) bool {
	return len(l.set) > 0 && login != "" && l.set[short(mailaddr.FoldKey(login), l.domain)]
}

// Ruling is the decision of a Judge.
type Ruling struct {
	Kind   Kind
	Reason record.Reason
	Text   string // for the client, when refused

	// Sender is the address that was judged: the sender as Postfix will queue
	// it, or the address that its local part leads to. Changed reports whether
	// it differs from the sender that was given.
	Sender  mailaddr.Address
	Changed bool
	Unclear error // why the queued form of the sender is unknown

	Answer Answer // the tables' answer, if they were asked
}

// Kind is the kind of a ruling.
type Kind int

// The kinds.
const (
	NotJudged Kind = iota // the rules do not apply
	Allowed
	Refused
)

// Decide decides about a sender and a login ("" for none). An error means that
// the tables could not be read.
func (j *Judge) Decide(ctx context.Context, sender mailaddr.Address, login string) (Ruling, error) {
	r := Ruling{Sender: sender}
	switch {
	case j.Exempt.Has(login):
		return r.with(Allowed, record.OwnerExempt, ""), nil
	case sender.IsNull():
		return j.judgeNull(r, login), nil
	case login == "" && !j.UnauthenticatedReject:
		return r.with(NotJudged, record.OwnerUnauthenticated, ""), nil
	}
	completed, err := j.complete(sender)
	if err != nil {
		r.Unclear = err
		return r.with(Refused, record.OwnerSenderUnclear, "incomplete or ambiguous address; use the form user@domain"), nil
	}
	r, err = j.decide(ctx, sender, completed.Queued, login)
	switch {
	case err != nil || r.Kind == Refused:
		return r, err
	case completed.Queued.IsLiteral():
		return j.decideAsLocal(ctx, sender, completed.Queued.Local, login, r)
	case completed.Routed.Key() == completed.Queued.Key():
		return r, nil
	}
	return j.decide(ctx, sender, completed.Routed, login)
}

// decideAsLocal judges the user of an address literal, which may be an address of this
// host. Postfix then looks up the user without a domain. r is the ruling on the literal;
// it holds if the user is not listed.
func (j *Judge) decideAsLocal(ctx context.Context, given mailaddr.Address, user, login string, r Ruling) (Ruling, error) {
	// A parsed address without a domain would get the domain of logins.
	local, err := j.decide(ctx, given, mailaddr.Address{Raw: user, Local: user}, login)
	if err != nil || local.Kind == Refused && local.Answer.Listed {
		return local, err
	}
	return r, nil
}

func (r Ruling) with(kind Kind, reason record.Reason, text string) Ruling {
	r.Kind, r.Reason, r.Text = kind, reason, text
	return r
}

func (j *Judge) judgeNull(r Ruling, login string) Ruling {
	switch {
	case login == "":
		return r.with(NotJudged, record.OwnerUnauthenticated, "")
	case j.NullSenderReject:
		return r.with(Refused, record.OwnerNullSender, "null sender not allowed for user "+login)
	}
	return r.with(Allowed, record.OwnerNullSender, "")
}

// complete returns the sender as Postfix uses it. Text that is not an address
// cannot be completed. A table may list it as it is, unless it contains
// routing.
func (j *Judge) complete(sender mailaddr.Address) (mailaddr.Completed, error) {
	if j.Rewriting == nil {
		return mailaddr.Completed{Queued: sender, Routed: sender}, nil
	}
	completed, err := j.Rewriting.Complete(sender)
	if err == nil || sender.IsValid() {
		return completed, err
	}
	if strings.ContainsAny(sender.Raw, "!%") || strings.HasPrefix(sender.Raw, "@") || strings.Count(sender.Raw, "@") > 1 {
		return completed, errors.New("address is not valid")
	}
	return mailaddr.Completed{Queued: sender, Routed: sender}, nil
}

// decide asks the tables about one form of the sender.
func (j *Judge) decide(ctx context.Context, given, sender mailaddr.Address, login string) (Ruling, error) {
	r := Ruling{Sender: sender, Changed: sender.Key() != given.Key() || sender.IsValid() != given.IsValid()}
	answer, err := j.Owners.Check(ctx, sender, login)
	r.Answer = answer
	if err != nil && !answer.Owned {
		return r.with(NotJudged, record.OwnerLookupFailed, ""), err
	}
	return j.rule(r, login), nil
}

// rule applies the rules to the answer of the tables.
func (j *Judge) rule(r Ruling, login string) Ruling {
	switch a := &r.Answer; {
	case a.Owned:
		return r.with(Allowed, ownedReason(a.How), "")
	case login == "" && a.Listed:
		return r.with(Refused, record.OwnerNotLoggedIn, "not logged in")
	case login == "" && !r.Sender.IsValid():
		return r.with(Refused, record.OwnerSenderNotAddress, "not a valid address")
	case login == "":
		return r.with(NotJudged, record.OwnerUnauthenticated, "")
	case a.Listed:
		return r.with(Refused, record.OwnerNotOwned, notOwned(login))
	case !r.Sender.IsValid():
		return r.with(Refused, record.OwnerSenderNotAddress, notOwned(login))
	case j.UnlistedPass:
		return r.with(Allowed, record.OwnerUnlisted, "")
	}
	return r.with(Refused, record.OwnerUnlisted, notOwned(login))
}

func notOwned(login string) string { return "not owned by user " + login }

func ownedReason(how How) record.Reason {
	switch how {
	case BySelf:
		return record.OwnerSelf
	case ByAlias:
		return record.OwnerOwnedByAlias
	}
	return record.OwnerOwned
}

// usualDetail is enough memory for most details, without another allocation.
const usualDetail = 256

// Detail returns the basis of the ruling, for the record: the entry, the
// aliases that led to it, and the sender as Postfix will queue it if that
// differs.
func (r *Ruling) Detail() string {
	var room [usualDetail]byte
	b := room[:0]
	switch {
	case r.Unclear != nil:
		b = append(append(b, "unclear: "...), r.Unclear.Error()...)
	case r.Changed:
		b = append(append(b, "queued="...), r.Sender.String()...)
	}
	return string(r.Answer.appendDetail(b))
}

func (a *Answer) appendDetail(b []byte) []byte {
	if a.Path.Table == "" {
		return b
	}
	if len(b) > 0 {
		b = append(b, ' ')
	}
	b = append(append(b, "map="...), a.Path.Table...)
	b = append(append(b, " key="...), a.Path.Key...)
	if where := a.Path.Where(); where != "" {
		b = append(append(b, " at="...), where...)
	}
	if len(a.Path.Via) > 0 {
		b = appendList(append(b, " via="...), a.Path.Via)
	}
	if !a.Owned {
		b = appendList(append(b, " owners="...), a.Owners)
	}
	return b
}

func appendList(b []byte, words []string) []byte {
	for i, word := range words {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, word...)
	}
	return b
}
