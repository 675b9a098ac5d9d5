package ownership

import (
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// isOwnerSeparator reports whether a character separates logins in the result
// of an owner table, as in Postfix.
func isOwnerSeparator(c byte) bool {
	return c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n'
}

// account returns a login in the form used to compare: folded, with the domain
// as A-labels, and without the login domain.
func (o *Owners) account(login string) string {
	return short(mailaddr.FoldKey(login), o.loginDomain)
}

// short removes the login domain from a folded login.
func short(folded, loginDomain string) string {
	if loginDomain == "" {
		return folded
	}
	at := len(folded) - len(loginDomain) - 1
	if at > 0 && folded[at] == '@' && folded[at+1:] == loginDomain {
		return folded[:at]
	}
	return folded
}

// ownsSelf reports whether a login owns the sender as its own address, and may.
func (o *Owners) ownsSelf(sender mailaddr.Address, login, account string) bool {
	return o.selfOwned && login != "" && o.isSelf(sender.WithDomain(o.loginDomain), login, account)
}

// isSelf reports whether the sender, with or without its extension, is the
// login's own address. A login without a domain has an address only through
// LoginDomain.
func (o *Owners) isSelf(sender mailaddr.Address, login, account string) bool {
	if !sender.IsValid() || o.loginDomain == "" && !strings.Contains(login, "@") {
		return false
	}
	if sender.IsPlain() && short(sender.Raw, o.loginDomain) == account || !sender.IsPlain() && o.account(sender.Key()) == account {
		return true
	}
	base, _, ok := sender.SplitExtension(o.delimiters)
	return ok && o.account(base.Key()) == account
}

// nextOwner splits the first login from a list; an empty one means the end.
func nextOwner(list string) (login, rest string) {
	list = trimSeparators(list)
	for i := range len(list) {
		if isOwnerSeparator(list[i]) {
			return list[:i], list[i:]
		}
	}
	return list, ""
}

// trimSeparators removes leading separators.
func trimSeparators(list string) string {
	for list != "" && isOwnerSeparator(list[0]) {
		list = list[1:]
	}
	return list
}

// listsOwner reports whether a list of logins contains the account.
func (o *Owners) listsOwner(list, account string) bool {
	for name, rest := nextOwner(list); name != ""; name, rest = nextOwner(rest) {
		if o.account(name) == account {
			return true
		}
	}
	return false
}
