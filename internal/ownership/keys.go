package ownership

import (
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// maxKeys is how many keys one sender can have: the address with and without its
// extension (quoted and unquoted, A-labels and U-labels), the local part with and
// without it (quoted and unquoted), the domain (A-labels and U-labels).
const maxKeys = 2*4 + 2*2 + 2

// keyList is a list of keys without an allocation of its own.
type keyList struct {
	keys [maxKeys]string
	n    int
}

// add appends a key unless it is there already.
func (l *keyList) add(key string) {
	if l.n == maxKeys {
		return
	}
	for _, known := range l.keys[:l.n] {
		if known == key {
			return
		}
	}
	l.keys[l.n] = key
	l.n++
}

func (l *keyList) all() []string { return l.keys[:l.n] }

// senderKeys are the keys of one sender, for both ways of asking.
type senderKeys struct {
	fixed   keyList // folded, in the order of mail_addr_find in Postfix
	pattern keyList // full address, not folded
}

// keysOf lists the keys of a sender. Every address is asked for in the quoted form
// first and in the unquoted one if that differs, as Postfix does since 3.2. A
// domain that has U-labels is asked for as A-labels first; Postfix knows only the
// spelling that the client used.
func (o *Owners) keysOf(sender mailaddr.Address) senderKeys {
	var keys senderKeys
	if !sender.IsValid() {
		keys.pattern.add(sender.Raw)
		keys.fixed.add(mailaddr.FoldKey(sender.Raw))
		return keys
	}
	local := sender.IsBare() || o.localDomains[sender.Domain]
	sender = sender.WithDomain(o.loginDomain)
	domains := [2]string{sender.Domain, sender.UnicodeDomain()}
	keys.pattern.addFull(sender, domains)

	base, _, extended := sender.SplitExtension(o.delimiters)
	keys.fixed.addFolded(sender, domains)
	if extended {
		keys.fixed.addFolded(base, domains)
	}
	if local {
		keys.fixed.addLocal(sender.Local)
		keys.fixed.addLocal(base.Local)
	}
	if sender.Domain != "" {
		keys.fixed.addDomains(domains)
	}
	return keys
}

// addFull adds the quoted and the unquoted address in each spelling of the domain.
func (l *keyList) addFull(a mailaddr.Address, domains [2]string) {
	l.add(a.String())
	l.add(a.Key())
	if domains[0] != domains[1] {
		l.add(mailaddr.Quote(a.Local) + "@" + domains[1])
		l.add(a.Local + "@" + domains[1])
	}
}

func (l *keyList) addFolded(a mailaddr.Address, domains [2]string) {
	if domains[0] == domains[1] && mailaddr.Quote(a.Local) == a.Local {
		l.add(mailaddr.FoldKey(a.Key())) // nearly every address: both forms are one
		return
	}
	quoted, plain := mailaddr.Fold(mailaddr.Quote(a.Local)), mailaddr.Fold(a.Local)
	for _, domain := range domains {
		suffix := ""
		if domain != "" {
			suffix = "@" + strings.ToLower(domain)
		}
		l.add(quoted + suffix)
		l.add(plain + suffix)
	}
}

func (l *keyList) addLocal(local string) {
	l.add(mailaddr.Fold(mailaddr.Quote(local)))
	l.add(mailaddr.Fold(local))
}

func (l *keyList) addDomains(domains [2]string) {
	for _, domain := range domains {
		l.add("@" + strings.ToLower(domain))
	}
}
