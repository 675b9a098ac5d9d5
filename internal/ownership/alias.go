package ownership

import (
	"iter"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// listsTarget reports whether a list of addresses, as in virtual(5), delivers
// directly to the account. Mail to an address with an extension goes to the
// user without it, so user+tag names user too. If the first target is
// "@domain", it means the sender's own local part in that domain.
func (o *Owners) listsTarget(list, account string, sender mailaddr.Address) bool {
	for target := range o.targets(list, sender) {
		if o.delivers(target, account) {
			return true
		}
	}
	return false
}

// targets yields the addresses of a list.
func (*Owners) targets(list string, sender mailaddr.Address) iter.Seq[mailaddr.Address] {
	return func(yield func(mailaddr.Address) bool) {
		first := true
		for text, rest := nextTarget(list); text != ""; text, rest = nextTarget(rest) {
			target := mailaddr.Parse(text)
			if first && strings.HasPrefix(text, "@") && sender.IsValid() {
				target = mailaddr.Parse(mailaddr.Quote(sender.Local) + text)
			}
			if !yield(target) {
				return
			}
			first = false
		}
	}
}

func (o *Owners) delivers(target mailaddr.Address, account string) bool {
	if !target.IsValid() {
		return false
	}
	if o.account(target.Key()) == account {
		return true
	}
	base, _, ok := target.SplitExtension(o.delimiters)
	return ok && o.account(base.Key()) == account
}

// nextTarget splits the first address from a list. Commas and white space
// outside of quotes separate the addresses. An empty address means the end.
func nextTarget(list string) (target, rest string) {
	list = trimSeparators(list)
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && isOwnerSeparator(c):
			return list[:i], list[i:]
		}
	}
	return list, ""
}
