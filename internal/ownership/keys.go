package ownership

import (
	"iter"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postmap"
)

// keys yields the keys to look up in a table of one kind, in order. They are made one by
// one, because the first is nearly always found.
func (o *Owners) keys(sender mailaddr.Address, table *postmap.Table, how How) iter.Seq[string] {
	return func(yield func(string) bool) {
		switch {
		case table.Pattern:
			patternKeys(sender, func(key string) bool { return yield(keyFor(table, how, key)) })
		case sender.IsValid():
			o.fixedKeys(sender, yield)
		default:
			yield(mailaddr.FoldKey(sender.Raw))
		}
	}
}

// keyFor returns the key for a form of an address. Tables of patterns get it as it is,
// except those of owners: smtpd(8) folds a sender before it asks smtpd_sender_login_maps,
// and cleanup(8) does not before it asks virtual_alias_maps.
func keyFor(table *postmap.Table, how How, form string) string {
	if table.Pattern && how != ByMap {
		return form
	}
	return mailaddr.Fold(form)
}

// patternKeys yields the spellings of the full address, not folded.
func patternKeys(sender mailaddr.Address, yield func(string) bool) {
	if !sender.IsValid() {
		yield(sender.Raw)
		return
	}
	yieldForms(sender, spellings(sender), yield)
}

// fixedKeys yields the folded forms, from the full address to its parts.
func (o *Owners) fixedKeys(sender mailaddr.Address, yield func(string) bool) {
	o.forms(sender, func(form string, _ bool) bool { return yield(mailaddr.Fold(form)) })
}

// forms yields the full address and its parts, in the order of Postfix's
// mail_addr_find; full reports whether a form is the full address.
func (o *Owners) forms(sender mailaddr.Address, yield func(form string, full bool) bool) {
	isLocal := sender.IsBare() || o.localDomains[sender.Domain]
	sender = sender.WithDomain(o.loginDomain)
	base, _, extended := sender.SplitExtension(o.delimiters)
	domains := spellings(sender)
	full := func(form string) bool { return yield(form, true) }
	part := func(form string) bool { return yield(form, false) }

	if !yieldForms(sender, domains, full) || extended && !yieldForms(base, domains, part) {
		return
	}
	if sender.Domain == "" {
		return // the full address was the local part
	}
	if isLocal && (!yieldForms(sender, spelling{}, part) || extended && !yieldForms(base, spelling{}, part)) {
		return
	}
	_ = part("@"+domains[0]) && domains[0] != domains[1] && part("@"+domains[1])
}

// spelling is a domain as A-labels and as U-labels, which may be equal. The
// zero value means no domain.
type spelling [2]string

// spellings returns the spellings of an address's domain, A-labels first.
// Postfix knows only the spelling that the client used.
func spellings(a mailaddr.Address) spelling {
	return spelling{a.Domain, a.UnicodeDomain()}
}

// yieldForms yields a's local part in the domains: quoted, and unquoted if that
// differs, as Postfix does since 3.2.
func yieldForms(a mailaddr.Address, domains spelling, yield func(string) bool) bool {
	if a.IsPlain() && domains[0] == a.Domain {
		return yield(a.Raw)
	}
	quoted := mailaddr.Quote(a.Local)
	for i, domain := range domains {
		if i > 0 && domain == domains[0] {
			break
		}
		if quoted != a.Local && !yield(inDomain(quoted, domain)) || !yield(keyIn(a, domain)) {
			return false
		}
	}
	return true
}

// keyIn returns a's key in a domain, which is nearly always a's own.
func keyIn(a mailaddr.Address, domain string) string {
	if domain == a.Domain {
		return a.Key()
	}
	return inDomain(a.Local, domain)
}

func inDomain(local, domain string) string {
	if domain == "" {
		return local
	}
	return local + "@" + domain
}
