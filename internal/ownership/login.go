package ownership

import (
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// ownerSeparators split the result of an owner table into logins, as Postfix does.
const ownerSeparators = ", \t\r\n"

// account is a login in the form that compares: folded, its domain as A-labels,
// and without the domain that bare logins have.
func (o *Owners) account(login string) string {
	folded := mailaddr.FoldKey(login)
	if o.loginDomain == "" {
		return folded
	}
	at := len(folded) - len(o.loginDomain) - 1
	if at > 0 && folded[at] == '@' && folded[at+1:] == o.loginDomain {
		return folded[:at]
	}
	return folded
}

// isSelf tells whether the sender, or the sender without its extension, is the
// login's own address. A login without a domain has one only by LoginDomain.
func (o *Owners) isSelf(sender mailaddr.Address, login, account string) bool {
	if !sender.IsValid() || o.loginDomain == "" && !strings.Contains(login, "@") {
		return false
	}
	if o.account(sender.Key()) == account {
		return true
	}
	base, _, ok := sender.SplitExtension(o.delimiters)
	return ok && o.account(base.Key()) == account
}

// nextField cuts the first field off a list; an empty field means the end.
func nextField(list, separators string) (field, rest string) {
	list = strings.TrimLeft(list, separators)
	end := strings.IndexAny(list, separators)
	if end < 0 {
		return list, ""
	}
	return list[:end], list[end:]
}

// listsOwner tells whether a list of logins names the account.
func (o *Owners) listsOwner(list, account string) bool {
	for name, rest := nextField(list, ownerSeparators); name != ""; name, rest = nextField(rest, ownerSeparators) {
		if o.account(name) == account {
			return true
		}
	}
	return false
}
