package allowlist

import (
	"errors"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

var errRecipient = errors.New("not an address (user@example.org), a domain (example.org) or a user of all domains (user@)")

// Recipients is a set of recipients. A nil list is empty.
type Recipients struct {
	addresses map[string]bool // folded
	users     map[string]bool // folded local parts
	domains   map[string]bool
}

// NewRecipients makes an empty list.
func NewRecipients() *Recipients {
	return &Recipients{addresses: map[string]bool{}, users: map[string]bool{}, domains: map[string]bool{}}
}

// ReadRecipients reads one entry a line: user@example.org, user@ for that user
// of every domain, or example.org for all users there and in all domains below
// it. # begins a comment. Errors contain file and line.
func ReadRecipients(path string) (*Recipients, error) {
	l := NewRecipients()
	if err := Read(path, l.Add); err != nil {
		return nil, err
	}
	return l, nil
}

// Add adds one entry, as in a line of a file.
func (l *Recipients) Add(entry string) error {
	if strings.HasPrefix(entry, "/") {
		return errRegexp
	}
	if err := never(entry); err != nil {
		return err
	}
	if user, ok := strings.CutSuffix(entry, "@"); ok {
		a := mailaddr.Parse(user)
		if !a.IsBare() {
			return errRecipient
		}
		l.users[mailaddr.Fold(a.Local)] = true
		return nil
	}
	if strings.Contains(entry, "@") && !strings.HasPrefix(entry, "@") {
		a := mailaddr.Parse(entry)
		if !a.IsValid() || a.IsBare() || !a.IsLiteral() && isNoName(a.Domain) {
			return errRecipient
		}
		l.addresses[mailaddr.Fold(a.Key())] = true
		return nil
	}
	domain, err := mailaddr.ParseDomain(strings.TrimLeft(entry, "@."))
	if err != nil || isNoName(domain) {
		return errRecipient
	}
	l.domains[domain] = true
	return nil
}

// Len returns the number of entries.
func (l *Recipients) Len() int {
	if l == nil {
		return 0
	}
	return len(l.addresses) + len(l.users) + len(l.domains)
}

// Has reports whether a recipient is in the list, with or without its
// extension. delimiters are the characters that separate an extension from the
// user (recipient_delimiter).
func (l *Recipients) Has(a mailaddr.Address, delimiters string) bool {
	if l == nil || !a.IsValid() {
		return false
	}
	base, _, _ := a.SplitExtension(delimiters)
	return l.has(a) || l.has(base)
}

func (l *Recipients) has(a mailaddr.Address) bool {
	return l.users[mailaddr.Fold(a.Local)] || l.addresses[mailaddr.Fold(a.Key())] || holdsDomain(l.domains, a.Domain)
}
